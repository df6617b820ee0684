"""Finds the program uv, and sets how long it waits for a silent network. Nothing here runs it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import threading
from collections.abc import Mapping
from typing import Final

__all__ = ["find_uv", "uv_patience"]

_asking_uv = threading.Lock()

_PATIENCE: Final = {"UV_HTTP_CONNECT_TIMEOUT": "5", "UV_HTTP_RETRIES": "1"}
"""uv's own defaults cost 10 to 120 seconds for an unreachable index."""

_SILENCE: Final = {"UV_HTTP_TIMEOUT": "6"}
"""An index that does not answer is asked twice, with a pause between: it times out after 12 to 16 seconds."""

_TIMEOUTS: Final = ("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "HTTP_TIMEOUT")
"""Variables of uv's timeout: the seconds without a byte."""


def find_uv(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the path of the client's uv: that of its interpreter's package `uv`, else the first on the PATH.

    Args:
        environment: The environment variables whose PATH counts.
    """
    if importlib.util.find_spec("uv") is not None:
        # One thread at a time: uv's package asks `sysconfig`, which is empty for others while the first one fills it
        # (CPython 3.11). A package without its executable has no such file.
        with _asking_uv, contextlib.suppress(FileNotFoundError):
            return str(importlib.import_module("uv").find_uv_bin())
    return shutil.which("uv", path=environment.get("PATH", os.defpath))


def uv_patience(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that make uv give up a silent network soon; the user's own take precedence.

    Args:
        environment: The user's variables; one that sets a timeout is respected.
    """
    return _PATIENCE if any(environment.get(name) for name in _TIMEOUTS) else {**_PATIENCE, **_SILENCE}
