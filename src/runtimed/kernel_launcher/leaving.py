"""Delivers a kernel's output before its code ends the process with `os._exit` or `os.abort`.

A terminal keeps flushed output. Here it would still be in the sockets of the process, and be lost with it. Used by
kernels, from their launcher. Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Any

__all__ = ["LEAVE_REPLY", "LEAVE_REQUEST", "install"]

LEAVE_REQUEST = "runtimed_leave_request"
"""The message behind the last output, on the same socket."""

LEAVE_REPLY = "runtimed_leave_reply"
"""The host's message on the control channel: it has all that came before the request."""


def install(kernel: Any) -> None:
    """Let `os._exit` and `os.abort` wait until the host has all that was flushed."""
    process, host = os.getpid(), os.getppid()
    delivered = threading.Event()
    exit_now, abort_now = os._exit, os.abort

    def note_reply(_stream: Any, _ident: Any, _parent: Any) -> None:
        delivered.set()

    def deliver() -> None:
        helpers = kernel.control_thread, kernel.iopub_thread.thread
        if os.getpid() != process or threading.current_thread() in helpers:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):  # replaced or closed
                stream.flush()
        kernel.session.send(kernel.iopub_socket, LEAVE_REQUEST, content={}, parent=kernel.get_parent())
        # A kernel that shuts down has ended them before it calls the functions of `atexit`.
        while all(thread.is_alive() for thread in helpers) and os.getppid() == host:
            if delivered.wait(0.1):
                return

    def exit_delivered(status: int) -> None:
        try:
            deliver()
        finally:
            exit_now(status)

    def abort_delivered() -> None:
        try:
            deliver()
        finally:
            abort_now()

    kernel.control_handlers[LEAVE_REPLY] = note_reply
    os._exit, os.abort = exit_delivered, abort_delivered  # type: ignore[assignment]  # both end it, too
