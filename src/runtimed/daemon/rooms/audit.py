"""Pages of a session's audit log: lifecycle steps from the registry, merged with the work in the session."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from typing import Final

from runtimed.models import AuditEntry
from runtimed.storage.audit import AuditRow

__all__ = ["log_page"]

SLICE: Final = 500
"""Entries of earlier pages that are skipped in one slice. Then everything else on the event loop has its turn."""


async def log_page(
    steps: Sequence[AuditRow], work: Generator[AuditRow, None, None], page: int, page_size: int
) -> list[AuditEntry]:
    """Return one page of the log, newest first.

    Both halves keep their own order; times only interleave them. So pages are consistent even if the clock was set
    back.

    Args:
        steps: Lifecycle steps, newest first.
        work: Entries about the work in the session, newest first. It is read as far as the page needs, and closed.
        page: Number of the page, from 1.
        page_size: Entries on a page.
    """
    with contextlib.closing(work):
        # At equal times the step is older: a session starts before any work in it.
        merged = heapq.merge(work, steps, key=lambda row: row.at, reverse=True)
        left = (page - 1) * page_size
        while left > 0:
            skipped = sum(1 for _ in itertools.islice(merged, min(left, SLICE)))
            left = left - skipped if skipped else 0
            await asyncio.sleep(0)
        return [_entry(row) for row in itertools.islice(merged, page_size)]


def _entry(row: AuditRow) -> AuditEntry:
    actor = row.actor
    return AuditEntry(
        at=datetime.fromtimestamp(row.at, UTC),
        until=datetime.fromtimestamp(row.until, UTC),
        action=row.action,
        count=row.count,
        client_id=None if actor is None else actor.client_id,
        label=None if actor is None else actor.label,
        uid=None if actor is None else actor.uid,
        pid=None if actor is None else actor.pid,
        cell_id=row.cell_id,
        execution_id=row.execution_id,
        detail=row.detail,
    )
