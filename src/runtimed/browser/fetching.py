"""Waits for a download that an action begins, and returns its result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final

from runtimed.browser.doing import Refused
from runtimed.browser.downloads import Download
from runtimed.browser.journey import Journey

__all__ = ["fetch"]


_BEGINS: Final = 3.0
"""Seconds within which a page to which a click has led must begin a download, unless the action sets a time."""


async def fetch(
    beginning: asyncio.Future[Download],
    begin: Awaitable[object] | None,
    seconds: float,
    journey: Journey | None = None,
    *,
    is_patient: bool = True,
) -> tuple[str, dict[str, Any]]:
    """Wait until a download is complete.

    Args:
        beginning: Resolves with the download (`Downloads.expect`); cancelled afterwards.
        begin: Begins it; None if it has begun.
        seconds: Time limit for all of it.
        journey: Follows the other consequences of what begins it.
        is_patient: Whether to wait for the whole time even if something else has come.

    Returns:
        What was done, and where the file is.

    Raises:
        Refused: If it does not begin, is not complete in time, or fails.
    """
    try:
        async with asyncio.timeout(seconds):
            if begin is not None:
                await begin
            if journey is not None and not is_patient:
                await _begun(beginning, journey)
            download = await beginning
            path: Path | None = await asyncio.shield(download.done)
    except TimeoutError:
        state = "did not begin" if beginning.cancelled() or not beginning.done() else "is not whole"
        said = "" if journey is None else journey.said()
        raise Refused(
            f"The download {state} after {seconds:g} s{said and f', and {said}'}; raise timeout=", error="Timeout"
        ) from None
    finally:
        beginning.cancel()
    if path is None:
        reason = "failed or was cancelled" if download.error is None else f"failed: {download.error}"
        raise Refused(f"The download of {download.url} {reason}", error="Refused")
    data = {
        "path": str(path),
        "suggested_filename": download.suggested,
        "url": download.url,
        "size": download.size,
    }
    return f"Downloaded {path.name} ({download.size} bytes)", data


async def _begun(beginning: asyncio.Future[Download], journey: Journey) -> None:
    """Wait for the beginning of a download.

    Raises:
        Refused: If something else has come.
    """
    instead = asyncio.create_task(journey.no_download(_BEGINS))
    either: set[asyncio.Future[Any]] = {beginning, instead}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        instead.cancel()
    if not beginning.done():
        raise Refused(f"That begins no download: {instead.result()}; timeout= waits longer", error="Refused")
