"""Waits for a download that an action begins, and says what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from runtimed.browser.doing import Refused
from runtimed.browser.downloads import Download

__all__ = ["fetch"]


async def fetch(
    beginning: asyncio.Future[Download], begin: Awaitable[object] | None, seconds: float
) -> tuple[str, dict[str, Any]]:
    """Wait until a download is whole.

    Args:
        beginning: Resolves with the download (`Downloads.expect`); cancelled afterwards.
        begin: What begins it; None if it has begun.
        seconds: For all of it.

    Returns:
        What was done, and where the file is.

    Raises:
        Refused: If it does not begin, or is not whole in time, or fails.
    """
    try:
        async with asyncio.timeout(seconds):
            if begin is not None:
                await begin
            download = await beginning
            path: Path | None = await asyncio.shield(download.done)
    except TimeoutError:
        state = "did not begin" if beginning.cancelled() or not beginning.done() else "is not whole"
        raise Refused(f"The download {state} after {seconds:g} s; raise timeout=", error="Timeout") from None
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
