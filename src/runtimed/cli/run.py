"""`runtimed run FILE ARG…`: a file in a session as `python FILE ARG…` runs it, or a notebook, cell by cell."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from runtimed.cli.as_json import jsonable, print_json
from runtimed.cli.exits import Exit
from runtimed.cli.follow import Follower, uninterrupted
from runtimed.cli.printing import complain, say
from runtimed.client import NOTEBOOK_METADATA, Execution, Session, working_folder
from runtimed.errors import EnvironmentFailed, NotebookFileError
from runtimed.ids import SessionId
from runtimed.models import ExecutionResult
from runtimed.notebook_file.reading import FileCell, NotebookFile, read_notebook
from runtimed.progress import ProgressLine
from runtimed.protocol.execution_operations import Program

__all__ = ["result_as_map", "run", "start_kernel"]


def run(arguments: argparse.Namespace) -> int:
    """Run a file, or standard input, in a session."""
    name: str = arguments.file
    try:
        if Path(name).suffix == ".ipynb":
            notebook = read_notebook(Path(name).read_text("utf-8-sig"), Path(name))
            if arguments.arguments:
                complain(f"A notebook takes no arguments; {name} was given {' '.join(arguments.arguments)}")
                return Exit.USAGE
            return _run_notebook(arguments, notebook)
        source = _read(name)
    except NotebookFileError as exc:
        complain(exc.message)
        return Exit.USAGE
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as exc:
        complain(f"Cannot read {name}: {getattr(exc, 'strerror', None) or exc}")
        return Exit.USAGE
    return _run_program(arguments, source)


def _read(name: str) -> str:
    """Read a source in the encoding that it declares, as Python does.

    Source: PEP 263.
    """
    content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    return importlib.util.decode_source(content)


def _run_program(arguments: argparse.Namespace, source: str) -> int:
    folder = working_folder()
    try:
        os.fsencode("\0".join((str(folder), arguments.file, *arguments.arguments))).decode()
    except UnicodeDecodeError:
        complain("The arguments, the file's name and the folder must be UTF-8 for a program in a session")
        return Exit.USAGE
    asked = Program(
        argv=[arguments.file, *arguments.arguments],
        path=None if arguments.file == "-" else str(folder / arguments.file),
        cwd=str(folder),
    )
    with _joined(arguments.session) as (session, leave):
        kernel_type = start_kernel(session, arguments.kernel_type, arguments.env, source=source)
        if kernel_type != "python" and arguments.arguments:
            complain(f"The session {session.notebook_id!r} has a {kernel_type} kernel, which takes no arguments")
            return Exit.USAGE
        program = asked if kernel_type == "python" else None
        with uninterrupted():
            execution = session.submit(code=source, stdin=not arguments.detach, program=program)
        if arguments.detach:
            leave()
            return _detached(session.notebook_id, [execution], as_json=arguments.json)
        follower = Follower(session, program=program is not None, quiet=arguments.json)
        with follower.interrupts([execution]):
            code = follower.follow(execution, arguments.timeout)
            if code == Exit.TIMED_OUT:
                leave()
            elif arguments.json:
                print_json(result_as_map(session.notebook_id, execution.wait(None), code))
    # A program that handles its Ctrl-C ends with a status of its own.
    return Exit.INTERRUPTED if follower.interrupted and program is None else code


def _run_notebook(arguments: argparse.Namespace, notebook: NotebookFile) -> int:
    with _joined(arguments.session) as (session, leave):
        _write(session, notebook)
        kernel_type, env_source = arguments.kernel_type, arguments.env
        if notebook.language not in ("python", "typescript") and env_source == "auto":
            kernel_type, env_source = notebook.language, f"kernelspec:{notebook.kernel_name}"
        start_kernel(session, kernel_type, env_source, arguments.file)
        if arguments.detach:
            executions = _submit(session, notebook.executed, stdin=False)
            leave()
            return _detached(session.notebook_id, executions, as_json=arguments.json)
        follower = Follower(session, quiet=arguments.json)
        results: list[dict[str, Any]] = []
        code = _follow_cells(follower, notebook.executed, arguments, results)
        if code == Exit.TIMED_OUT:
            leave()
        elif arguments.json:
            print_json(results)
    return Exit.INTERRUPTED if follower.interrupted else code


def _follow_cells(
    follower: Follower, cells: Sequence[FileCell], arguments: argparse.Namespace, results: list[dict[str, Any]]
) -> int:
    """Queue and follow cells until one fails; return the exit code."""
    session, begun = follower.session, 0
    while begun < len(cells):
        # An error cancels what the same client has queued behind it: cells that may run after one are queued later.
        end = next((n + 1 for n in range(begun, len(cells)) if cells[n].may_fail), len(cells))
        executions = _submit(session, cells[begun:end], stdin=True)
        with follower.interrupts(executions):
            for cell, execution in zip(cells[begun:end], executions, strict=True):
                code = follower.follow(execution, arguments.timeout)
                if code == Exit.TIMED_OUT:
                    return code
                if arguments.json:
                    results.append(result_as_map(session.notebook_id, execution.wait(None), code))
                # Later cells would run in another kernel, which lacks the earlier state.
                if follower.interrupted or follower.kernel_died or (code and not cell.may_fail):
                    return code
        begun = end
    return Exit.OK


def _submit(session: Session, cells: Iterable[FileCell], *, stdin: bool) -> list[Execution]:
    """Queue cells, atomically with respect to Ctrl-C."""
    with uninterrupted():
        return [session.submit(cell.id, stdin=stdin) for cell in cells]


def _write(session: Session, notebook: NotebookFile) -> None:
    """Copy a file into the document: existing cells get the file's source, others are appended."""
    if notebook.metadata and session.get_metadata(NOTEBOOK_METADATA) is None:
        session.set_metadata(NOTEBOOK_METADATA, json.dumps(notebook.metadata))
    for cell in notebook.cells:
        present = session.get_cell_type(cell.id)
        if present is None:
            session.create_cell(cell.source, cell.cell_type, cell_id=cell.id)
            continue
        if present != cell.cell_type:
            session.set_cell_type(cell.id, cell.cell_type)
        if session.get_cell_source(cell.id) != cell.source:
            session.set_source(cell.id, cell.source)


@contextlib.contextmanager
def _joined(session_id: str | None) -> Iterator[tuple[Session, Callable[[], None]]]:
    """Yield a session, without an id a new one that ends with the block, and a function that only leaves it instead.

    A session that is left so ends half a minute after its code.
    """
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(Session(session_id, label="runtimed run"))

        def leave() -> None:
            stack.pop_all()
            session.close()

        yield session, leave


def start_kernel(
    session: Session,
    kernel_type: str = "python",
    env_source: str = "auto",
    notebook_path: str | None = None,
    *,
    source: str | None = None,
) -> str:
    """Start a kernel unless one runs; return its type. The arguments are those of `Session.start_kernel`.

    Raises:
        EnvironmentFailed: If one runs in another environment than the requested one.
    """
    runs = session.kernel_started
    with ProgressLine() as line:
        session.start_kernel(kernel_type, env_source, notebook_path, source=source, progress=line)
    status = session.status()
    has = status.env_source or ""
    # `python:NAME` may be any path.
    if runs and env_source not in ("auto", has) and has.partition(":")[0] != "python":
        raise EnvironmentFailed(
            f"The session {session.notebook_id!r} has a kernel in {has!r}, not in {env_source!r}: leave --env out, or "
            "take another session",
            env_source=has,
        )
    return status.kernel_type or kernel_type


def _detached(session_id: SessionId, executions: Sequence[Execution], *, as_json: bool) -> int:
    if as_json:
        queued = [{"cell_id": one.cell_id, "execution_id": one.id} for one in executions]
        print_json({"session_id": session_id, "executions": queued})
        return Exit.OK
    say(f"session    {session_id}")
    for one in executions:
        say(f"execution  {one.id}")
    return Exit.OK


def result_as_map(session_id: SessionId, result: ExecutionResult, code: int) -> dict[str, Any]:
    """Return an execution as `--json` prints it."""
    return {
        "session_id": session_id,
        **jsonable(result),
        "stdout": result.stdout,
        "stderr": result.stderr,
        "error": result.error,
        "exit_code": int(code),
    }
