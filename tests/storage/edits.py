"""What tests ask of the audit log."""

from runtimed.storage.audit import Actor
from runtimed.storage.session_store import SessionStore


def last_edit(store: SessionStore, cell_id: str) -> tuple[Actor, float] | None:
    """The last editor of one cell, and the time."""
    return store.last_edits([cell_id]).get(cell_id)
