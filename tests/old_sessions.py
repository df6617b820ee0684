"""Sessions in a data folder whose ids no session would get today."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runtimed import Client
from runtimed.storage.registry_store import RegistryStore, SessionRow
from tests.conftest import processes_of, wait_until

__all__ = ["closed_row", "put_old_sessions"]


def put_old_sessions(folder: Path, session_ids: Iterable[str], label: str | None = None) -> None:
    """Enter ended sessions, as of a release that allowed any text, into a data folder whose daemon is ended for it."""
    Client().shutdown()
    wait_until(lambda: not processes_of(folder), "the daemon lives on")
    with RegistryStore(folder / "registry.db") as store, store.transaction():
        for session_id in session_ids:
            store.put(closed_row(session_id, accessed_at=0.0, label=label))


def closed_row(session_id: str, accessed_at: float, label: str | None = None) -> SessionRow:
    """An ended session."""
    return SessionRow(
        session_id=session_id,
        kind="kernel",
        status="closed",
        close_reason="stopped",
        created_at=0.0,
        started_at=0.0,
        closed_at=accessed_at,
        last_accessed_at=accessed_at,
        timeout_minutes=None,
        max_duration_minutes=None,
        keep_alive=30.0,
        ephemeral=False,
        creator="somebody",
        label=label,
        error=None,
        host_epoch=None,
        host_dir=None,
        host_pid=None,
        kernel_type=None,
        kernel_pid=None,
        env_source=None,
    )
