"""The operations on the kernel."""

from __future__ import annotations

import json
import logging
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow, OnEvent, ask, follow_events
from runtimed.client.given import check_choice
from runtimed.errors import InvalidArgument, KernelStartFailed
from runtimed.models import CommType
from runtimed.progress import Progress
from runtimed.protocol import kernel_operations as kernel_ops
from runtimed.protocol.comms import CommBody
from runtimed.protocol.events import EnvProgress, Event

__all__ = [
    "ask_kernel",
    "complete",
    "inspect",
    "interrupt",
    "kernel_choice",
    "log_environment",
    "restart_kernel",
    "send_comm",
    "shown_on",
    "shutdown_kernel",
    "start_kernel",
    "trust_environment",
    "working_folder",
]

logger = logging.getLogger(__name__)


def start_kernel(
    notebook: Notebook,
    kernel_type: str = "python",
    env_source: str = "auto",
    notebook_path: str | Path | None = None,
    *,
    source: str | None = None,
    progress: Progress | None = None,
) -> Flow[None]:
    """Start a kernel for this session. If one runs already, return at once, whatever was asked for.

    The kernel gets this process's environment variables, working directory, umask, niceness and resource limits (the
    last on Linux), as if this process had started it itself.

    Args:
        kernel_type: `python`; `deno` for TypeScript, whatever `env_source` says; or the name of another language whose
            kernelspec `env_source` names.
        env_source: `auto`, `uv:prewarmed`, `conda:prewarmed`, `current` (this process's interpreter),
            `python:/path/to/python`, `python:NAME` (a program on this process's PATH) or `kernelspec:NAME`. `auto` is
            what the notebook or its nearest project declares (metadata, a script block, a project file), else this
            process's interpreter; `runtimed env explain` says which, and so does the logger `runtimed` at each start,
            as INFO. The property `env_source` says what runs.
        notebook_path: The notebook's file, which need not exist: the kernel works in its nearest existing folder, and
            the search for project files begins there.
        source: Code that is about to run: `auto` reads its script block (PEP 723).
        progress: Called with the progress of the environment's making, and with the kernel's environment.

    Raises:
        KernelStartFailed: If the kernel does not become ready; the message has its last lines on standard error.
        SessionClosed: If a client stops the session before it is ready.
        EnvironmentFailed: If that environment cannot be made, or needs consent (`trust_environment`); the message says
            what to do.
    """
    choice = kernel_choice(kernel_type, env_source, notebook_path)
    request = kernel_ops.StartKernel(notebook_id=notebook.id, kernel=choice, source=source)
    reply = yield from follow_events(request, shown_on(progress))
    explained = log_environment(reply.explained if reply.started else None)
    if explained is not None and progress is not None:
        progress.announce(explained)


def shown_on(progress: Progress | None) -> OnEvent:
    """Return what shows the steps of an environment, among the events of an execution or of a kernel's start."""

    def show(event: Event) -> None:
        if progress is not None and isinstance(event, EnvProgress):
            progress.show(event.message, event.done, event.total)

    return show


def log_environment(explained: str | None) -> str | None:
    """Log which environment a kernel has got and why, and return it; None if nobody has started one."""
    if explained is not None:
        logger.info("%s", explained)
    return explained


def trust_environment(notebook: Notebook, notebook_path: str | Path | None = None) -> Flow[str]:
    """Consent to installing what the document or the project of this session asks for, for all its kernels.

    Dependencies need consent if they came with another person's document or project. What a client of this daemon
    writes into the document, a project file of your own folder, and an environment that is asked for by name need none.
    Other dependencies that are asked for later need consent of their own.

    Args:
        notebook_path: Where the search for project files begins; see `start_kernel`.

    Returns:
        What was consented to, as lines of text.

    Raises:
        EnvironmentFailed: If the description of the environment is invalid.
    """
    choice = kernel_choice(notebook_path=notebook_path)
    reply = yield from ask(kernel_ops.TrustEnvironment(notebook_id=notebook.id, kernel=choice))
    return reply.explained


def kernel_choice(
    kernel_type: str = "python", env_source: str = "auto", notebook_path: str | Path | None = None
) -> kernel_ops.KernelChoice:
    """Return which kernel is asked for; see `start_kernel`."""
    folder = None
    if notebook_path is not None:
        path = Path(notebook_path).expanduser()
        above = (path if path.is_absolute() else working_folder() / path).parents
        # `Path.is_dir` raises if a name is too long or a folder may not be entered.
        folder = str(next(place for place in above if os.path.isdir(place)))  # noqa: PTH112
    return kernel_ops.KernelChoice(kernel_type=kernel_type, env_source=env_source, folder=folder)


def working_folder() -> Path:
    """Return this process's working directory.

    Raises:
        KernelStartFailed: If it was deleted.
    """
    try:
        return Path.cwd()
    except FileNotFoundError as exc:
        raise KernelStartFailed(
            "The folder in which this process works was deleted; change to another one (os.chdir, cd) and try again"
        ) from exc


def restart_kernel(notebook: Notebook) -> Flow[None]:
    """Replace the kernel by a new one; the session, its cells and its outputs stay.

    The running execution ends with a `KernelDied` error, queued ones are cancelled.

    Raises:
        NoKernel: If no kernel runs.
        KernelStartFailed: If the new one does not become ready.
    """
    log_environment((yield from ask(kernel_ops.RestartKernel(notebook_id=notebook.id))).explained)


def shutdown_kernel(notebook: Notebook) -> Flow[None]:
    """End the kernel; the session stays active without one. Idempotent."""
    yield from ask(kernel_ops.ShutdownKernel(notebook_id=notebook.id))


def interrupt(notebook: Notebook) -> Flow[None]:
    """Interrupt the running cell: its code gets a KeyboardInterrupt. Harmless if nothing runs.

    As after any error, what the same client had queued behind that cell is cancelled. What it queues later is not, and
    other clients' cells never are.

    Works from signal handlers and other threads while another call waits.

    Raises:
        NoKernel: If no kernel runs.
    """
    yield from ask(kernel_ops.Interrupt(notebook_id=notebook.id))


def complete(notebook: Notebook, code: str, cursor_pos: int | None = None) -> Flow[dict[str, Any]]:
    """Ask the kernel for completions; it answers while a cell runs.

    Args:
        code: The code so far.
        cursor_pos: The cursor's position, in code points; None for the end.

    Returns:
        The content of Jupyter's complete_reply: `matches`, `cursor_start`, `cursor_end`, `metadata`.

    Raises:
        InvalidArgument: If the position is outside of the code.
        NoKernel: If no kernel runs.

    Source: Jupyter messaging 5.4, "Completion".
    """
    position = _position(code, cursor_pos)
    return (yield from ask(kernel_ops.Complete(notebook_id=notebook.id, code=code, cursor_pos=position))).content


def inspect(
    notebook: Notebook, code: str, cursor_pos: int | None = None, detail_level: int = 0
) -> Flow[dict[str, Any]]:
    """Ask the kernel about the object at a position in code; it answers while a cell runs.

    Args:
        code: The code so far.
        cursor_pos: The cursor's position, in code points; None for the end.
        detail_level: 1 includes the source code, 0 does not.

    Returns:
        The content of Jupyter's inspect_reply: `found`, `data` by MIME type, `metadata`.

    Raises:
        InvalidArgument: If the position is outside of the code.
        NoKernel: If no kernel runs.

    Source: Jupyter messaging 5.4, "Introspection".
    """
    position = _position(code, cursor_pos)
    request = kernel_ops.Inspect(notebook_id=notebook.id, code=code, cursor_pos=position, detail_level=detail_level)
    return (yield from ask(request)).content


def ask_kernel(
    notebook: Notebook, msg_type: kernel_ops.FrontendQuestion, content: Mapping[str, Any] | None = None
) -> Flow[dict[str, Any]]:
    """Send the kernel a request that executes nothing, and return the content of its reply; for frontends.

    Python kernels answer while a cell runs, and each kernel does so with its info.

    Args:
        msg_type: `is_complete_request`, `history_request`, `comm_info_request` or `kernel_info_request`.
        content: The content of the request: JSON values.

    Returns:
        The content of the reply. Of one larger than 1 MiB, the latest entries of the history, or the first comms.

    Raises:
        InvalidArgument: If there is no such request, or something is no JSON value.
        NoKernel: If no kernel runs.
        RuntimedError: If it does not answer within 10 seconds.

    Source: Jupyter messaging 5.5, "Messages on the shell (ROUTER/DEALER) channel".
    """
    asked = kernel_ops.AskKernel(notebook_id=notebook.id, msg_type=msg_type, content=dict(content or {}))
    return (yield from ask(asked)).content


def send_comm(
    notebook: Notebook,
    msg_type: CommType,
    content: Mapping[str, Any],
    *,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[bytes] = (),
    request_id: str | None = None,
) -> Flow[None]:
    """Send the kernel a message of a comm, as the frontend of a widget does; for frontends.

    The kernel takes it when no cell runs. What it sends itself, `subscribe(event_types=["comm"])` gives.

    Args:
        msg_type: `comm_open`, `comm_msg` or `comm_close`.
        content: JSON values: the `comm_id`, the `data`, and for `comm_open` the `target_name`.
        metadata: JSON values.
        buffers: The binary buffers, together with the rest less than 16 MiB.
        request_id: The message's id, which the raw events of what it causes name; None for a generated one.

    Raises:
        InvalidArgument: If the message is too large, its type unknown, something no JSON value, or a buffer no bytes.
        NoKernel: If no kernel runs.

    Source: Jupyter messaging 5.4, "Custom Messages".
    """
    check_choice("msg_type", msg_type, get_args(CommType))
    if not isinstance(buffers, list | tuple):
        raise InvalidArgument(f"buffers is a list of bytes; not {reprlib.repr(buffers)}", argument="buffers")
    for buffer in buffers:
        if not isinstance(buffer, bytes | bytearray | memoryview):
            raise InvalidArgument(f"a buffer must be bytes, not {type(buffer).__name__}", argument="buffers")
    encoded = _json("content", content)
    comm_id = content.get("comm_id")
    if not isinstance(comm_id, str) or not comm_id:
        raise InvalidArgument(f"content has the comm_id, a str; not {reprlib.repr(comm_id)}", argument="content")
    message = CommBody(
        msg_type=msg_type,
        content=encoded,
        metadata=_json("metadata", metadata or {}),
        buffers=tuple(map(bytes, buffers)),
        request_id=request_id,
    )
    yield from ask(kernel_ops.SendComm(notebook_id=notebook.id, message=message))


def _json(name: str, value: Mapping[str, Any]) -> str:
    """Return a JSON object as a text."""
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{name} is a dict of JSON values; not {reprlib.repr(value)}", argument=name)
    try:
        return json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidArgument(f"{name} is a dict of JSON values: {exc}", argument=name) from exc


def _position(code: str, cursor_pos: int | None) -> int:
    """Return the cursor's position. A kernel never answers a question about a position outside of the code."""
    if not isinstance(code, str):
        raise InvalidArgument(f"code must be a str, not {type(code).__name__}", argument="code")
    if cursor_pos is None:
        return len(code)
    if not isinstance(cursor_pos, int) or not 0 <= cursor_pos <= len(code):
        raise InvalidArgument(
            f"cursor_pos counts code points of the code, here from 0 to {len(code)}; not {reprlib.repr(cursor_pos)}",
            argument="cursor_pos",
        )
    return cursor_pos
