"""`%%runtimed`, `%runtimed` and `%runtimed_cell`: a notebook's or terminal's interface to shared sessions.

Everything here blocks, so it works inside a running event loop.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_cell_magic, magics_class
from traitlets import Bool, Float, Unicode

from runtimed.client import Execution, Session
from runtimed.display import readable_size, show_note
from runtimed.durations import check_duration
from runtimed.errors import CellNotFound, ExecutionTimeout, SessionError, SessionNotFound
from runtimed.ids import MAX_LABEL, CellId, new_cell_id, new_execution_id, new_notebook_id
from runtimed.ipython import reports
from runtimed.ipython.arguments import OPTIONS_HELP, Command, RunOptions, parse_cell, parse_command, parse_run
from runtimed.ipython.browsing import Browsing
from runtimed.ipython.failures import cell_failed, short_errors
from runtimed.ipython.followed import Followed
from runtimed.ipython.joined import JoinedSessions
from runtimed.ipython.naming import document_cell_id, frontend_cell_id, notebook_file
from runtimed.ipython.payload import act_on
from runtimed.ipython.queue import described, has_source, read_queue, state_of_execution
from runtimed.ipython.routing import Router
from runtimed.ipython.streaming import Live, RunsAlready, Wanted, can_answer, replay
from runtimed.models import ExecutionResult
from runtimed.progress import ProgressLine
from runtimed.texts import printable

__all__ = ["RuntimedMagics"]


def _with_options(magic: Callable[..., Any]) -> Callable[..., Any]:
    """Insert the options into a magic's docstring, which `?` shows."""
    magic.__doc__ = (magic.__doc__ or "").replace("{options}", OPTIONS_HELP.replace("\n", "\n" + " " * 8))
    return magic


@magics_class
class RuntimedMagics(Magics):
    """The magics of runtimed; their defaults are settings: `%config RuntimedMagics`."""

    timeout: Any = Float(
        None, allow_none=True, min=0.0, help="Seconds to wait for the end of a cell; None waits for ever."
    ).tag(config=True)
    env: Any = Unicode("auto", help="The environment of kernels that the magics start.").tag(config=True)
    kernel_type: Any = Unicode("python", help="The language of kernels that the magics start.").tag(config=True)
    label: Any = Unicode(
        "",
        help="What other clients call this one, in sessions that it joins from now on; the notebook's name if empty.",
    ).tag(config=True)
    browser_timeout: Any = Float(
        30.0,
        allow_none=True,
        min=0.0,
        help="Minutes without use after which a browser session that the magics start times out; None for never.",
    ).tag(config=True)
    show_session_id: Any = Bool(
        True, help="Say the id of a session that got a generated one, and where a cell runs after `%runtimed on`."
    ).tag(config=True)

    def __init__(self, shell: Any) -> None:
        super().__init__(shell, parent=shell)
        self.sessions: Final = JoinedSessions()
        self.browsing: Final = Browsing(_say)
        self.followed: Final = Followed(shell, time.time)
        self.router: Final = Router(shell, lambda: self.sessions.current)
        self.execution_count = 0
        """The count of the latest execution that was followed to its end here."""
        self._unsaid: str | None = None

    # --- the magics ---

    @line_cell_magic
    @_with_options
    def runtimed(self, line: str, cell: str | None = None) -> Any:
        """Run a cell in a live session that others share, and that outlives this notebook.

        As `%%runtimed`, the first line of a cell::

            %%runtimed [NOTEBOOK_ID] [options]
            code

        runs the code in the kernel of the session NOTEBOOK_ID. Outputs appear here as they happen. All clients of the
        session see the cell and its outputs, too. The session outlives this notebook.

        Without NOTEBOOK_ID, the code runs in the session of `%runtimed connect`, else in the first session that a cell
        named, else in one named after this notebook's file if that is known, else in a new one, whose id is printed.
        Running a cell again updates and runs the same cell of the shared document. In a terminal each run adds a cell.

        Options:

        {options}

        Running a cell whose code still runs or waits attaches to it: its earlier outputs appear again, and the others
        follow. So a reopened notebook finds its job. While this notebook's own kernel still waits for the cell, all
        outputs appear at the end. To see them live, restart that kernel, which does not affect the session, and run the
        cell again. A waiting cell says what it waits for.

        A cell that fails shows the traceback of its kernel, and stops "Run All". The stop button or Ctrl-C interrupts
        the remote code; a second one only stops waiting. `input()` and `getpass()` ask here.

        As `%runtimed`, a line shows or changes the state:

        %runtimed                     show the daemon, the session and its kernel
        %runtimed connect ID [--env ENV] [--kernel-type TYPE]
                                      join a session and use it from now on; with an option, start its kernel now. The
                                      id of a browser session is used by `%runtimed browser`
        %runtimed on [ID]             send every following cell to the session, as if %%runtimed stood above it;
                                      `%%local` as a cell's first line keeps that cell here
        %runtimed off                 run cells here again
        %runtimed sessions            list all sessions of the daemon
        %runtimed cells               list the cells of the session, and which of them run or wait
        %runtimed replay [CELL_ID]    show the outputs of a cell, else of the running or latest execution, and follow it
                                      live; a prefix of an id is enough. The stop button only ends the following
        %runtimed pull NAME [NAME…] [--as NEW]
                                      copy variables of the session's kernel into this one, at most 8 MiB each
        %runtimed push NAME [NAME…] [--as NEW]
                                      copy variables of this kernel into the session's
        %runtimed interrupt           interrupt the running cell
        %runtimed restart             replace the kernel by a new one
        %runtimed stop                end the session for everybody; its cells and outputs stay readable
        %runtimed env                 show which environment a kernel would get and why, and which one runs
        %runtimed env trust           consent to installing what the session's document or project asks for
        %runtimed browser …           drive a browser, a real Chromium that others can join:

        %runtimed browser start [ID]  start a browser session, or join it; the other commands start one if necessary
        %runtimed browser goto URL    open an address
        %runtimed browser observe     show the page as text, with a ref for each element
        %runtimed browser click REF   also `click SELECTOR`, `click ROLE "NAME"`, `click field=value …`
        %runtimed browser fill REF "TEXT"
                                      also with a selector, or a role and a name
        %runtimed browser scrape      show the page's content as Markdown
        %runtimed browser screenshot  show a picture of the view, the whole page (--full-page) or an element (REF)
        %runtimed browser console     list what pages wrote to the console; also `requests` and `downloads`
        %runtimed browser view        watch it live, in your own browser
        %runtimed browser status      show its page, and the address of its viewer
        %runtimed browser stop        end it for everybody

        `cells`, `replay`, `interrupt`, `restart`, `stop`, `env` and `env trust` also take a NOTEBOOK_ID as their last
        word.

        `%config RuntimedMagics` shows the settings, `%config RuntimedMagics.timeout = 60` changes one. Tab completes
        options, session ids and cell ids.

        Examples:

        A cell in a session that a script or an agent can join with `runtimed.Session("analysis")`::

            %%runtimed analysis
            import pandas as pd
            frame = pd.read_csv("data.csv")
            frame.describe()

        A long computation, seen later from anywhere::

            %%runtimed analysis --no-wait
            train()

            %runtimed connect analysis
            %runtimed cells
            %runtimed replay

        The result as a value::

            %%runtimed --out result --silent
            print("hello")

            result.stdout
        """
        with short_errors():
            if cell is not None:
                whole = self.router.whole_cell()
                self._run(parse_run(line), cell.rstrip("\n") if whole is None else whole)
                return None
            command = parse_command(line)
            if command is None:
                chosen = self.chosen(None)
                joined = chosen is not None and self.sessions.is_joined(chosen)
                _say(reports.state_report(chosen, joined, self.browsing.session_id, all_cells=self.router.on))
            elif command.name == "browser":
                return self.browsing.perform(command.rest, label=self._label(), timeout_minutes=self.browser_timeout)
            else:
                self._command(command)
        return None

    @line_cell_magic
    def runtimed_cell(self, line: str, cell: str | None = None) -> None:
        """Execute a cell of a shared session's document, and display its outputs here as they happen.

        ::

            %runtimed_cell CELL_ID [NOTEBOOK_ID] [options]

        executes the cell as it is in the document. `%%runtimed_cell`, as the first line of a cell, first sets its
        source to the rest of the cell. NOTEBOOK_ID defaults to the joined session. The options are those of
        `%%runtimed` (see `%%runtimed?`), except `--cell`. `%runtimed cells` lists the cell ids.

        Examples::

            %runtimed_cell cell-0b7c… analysis

            %%runtimed_cell cell-0b7c…
            frame.tail()
        """
        with short_errors():
            magic = "%runtimed_cell" if cell is None else "%%runtimed_cell"
            options = parse_cell(line, magic)
            if cell is not None and not cell.strip():
                raise UsageError(f"{magic}: there is no code; `%runtimed_cell` executes the cell as it is")
            self._execute(self._existing(options.notebook_id), options, None if cell is None else cell.rstrip("\n"))

    @cell_magic
    def local(self, line: str, _cell: str) -> None:
        """Run a cell here, though `%runtimed on` sends every cell to a session.

        ::

            %%local
            code

        `%%runtimed?` explains sessions.
        """
        # The router removes a first line that is only `%%local`, so that the cell runs as any other does.
        raise UsageError(f"%%local takes nothing, not {line.strip()!r}")

    @property
    def namespace(self) -> dict[str, Any]:
        """The variables of the shell."""
        shell: Any = self.shell
        namespace: dict[str, Any] = shell.user_ns
        return namespace

    # --- executing ---

    def _run(self, options: RunOptions, code: str) -> None:
        notebook_id = self.chosen(options.notebook_id)
        if notebook_id is None:
            notebook_id = self._unsaid = new_notebook_id()
        session = self._join(notebook_id)
        if self.router.on and self.show_session_id and not options.silent:
            self.router.show_place(session.notebook_id)
        if self._unsaid is not None and self.show_session_id and not options.silent:
            _say(f"New session {self._unsaid} (`%runtimed connect {self._unsaid}` joins it from anywhere)")
            self._unsaid = None
        self._execute(session, options, code)

    def _execute(self, session: Session, options: RunOptions, source: str | None) -> None:
        """Execute a cell and show it.

        Args:
            session: A joined session.
            options: The options. Without a cell id, the cell is the one that belongs to this cell of the notebook.
            source: The cell's new source; None executes it unchanged.

        Raises:
            CellFailed: If its code raised, or it was cancelled.
        """
        if options.cell_id is not None and session.get_cell_type(options.cell_id) is None:
            raise CellNotFound(f"Cell not found: {options.cell_id}", cell_id=options.cell_id)
        cell_id = options.cell_id or self._own_cell(session)
        queue = read_queue(session)
        found = None if options.again else queue.of_cell(cell_id)
        if found is not None:
            code = session.get_cell_source(cell_id) if source is None else source
            if code is not None and not has_source(found, code) and not options.silent:
                _say(f"The cell's earlier code is {state_of_execution(found)}; this one waits behind it")
        elif source is not None and options.wait and not options.again:
            ended = self.followed.asked_meanwhile(cell_id, source)
            if ended is not None and session.get_cell(cell_id, outputs=False).execution_id == ended:
                self._show_ended(session, options, ended)
                return
        wanted = Wanted(
            cell_id=cell_id,
            code=source,
            execution_id=new_execution_id(),
            stdin=options.wait and can_answer(self.shell),
            unless_queued=not options.again,
            kernel_type=options.kernel_type or self.kernel_type,
            env_source=options.env or self.env,
            notebook_path=notebook_file(self.shell),
        )
        try:
            self._queue(session, options, wanted, queue.behind())
        except RunsAlready as exc:
            self._attach(session, options, exc.execution, source)

    def _queue(self, session: Session, options: RunOptions, wanted: Wanted, behind: str) -> None:
        """Queue an execution of a cell and show it.

        Raises:
            RunsAlready: If the code runs or waits already.
            CellFailed: If its code raised, or it was cancelled.
        """
        note = reports.kernel_note(session.notebook_id, options.kernel_type, options.env)
        if note is not None and not options.silent:
            _say(note)
        if not options.wait:
            with ProgressLine(self.shell) as progress:
                wanted.submit(session, progress=progress)
            if not options.silent:
                _say(f"Queued execution {wanted.execution_id} of cell {wanted.cell_id}")
            return
        timeout = self._timeout(options)
        with ProgressLine(self.shell) as progress, self._timeouts(wanted.cell_id, timeout):
            live = Live(session, wanted.execution_id, silent=options.silent)
            result = live.run(wanted, timeout, behind, None if options.silent else progress)
        if wanted.code is not None:
            self.followed.ended(wanted.cell_id, wanted.execution_id, wanted.code)
        self._finish(session, options, live, result)

    def _attach(self, session: Session, options: RunOptions, execution: Execution, source: str | None) -> None:
        """Follow an execution of this very cell that has not ended, instead of queueing another one."""
        found = read_queue(session).find(execution.id)
        if not options.silent:
            state = "which has just ended" if found is None else state_of_execution(found)
            _say(f"Attached to execution {execution.id} of this cell, {state}; `--again` queues another one")
        if not options.wait:
            return
        is_asking = found is not None and found.is_asking
        timeout = self._timeout(options)
        with self._timeouts(execution.cell_id, timeout):
            live = Live(session, execution.id, silent=options.silent)
            result = live.attach(execution, timeout, is_asking=is_asking and can_answer(self.shell))
        if source is not None:
            self.followed.ended(execution.cell_id, execution.id, source)
        self._finish(session, options, live, result)

    def _show_ended(self, session: Session, options: RunOptions, execution_id: str) -> None:
        """Show an execution that had not ended when this cell was requested again, instead of starting another one."""
        if not options.silent:
            _say(f"This cell was asked for again while execution {execution_id} ran; `--again` starts another one")
        live = Live(session, execution_id, silent=options.silent)
        result = live.attach(session.execution(execution_id), None, is_asking=False)
        self._finish(session, options, live, result)

    def _timeout(self, options: RunOptions) -> float | None:
        return check_duration("timeout", self.timeout if options.timeout is None else options.timeout)

    @staticmethod
    @contextlib.contextmanager
    def _timeouts(cell_id: str, timeout: float | None) -> Iterator[None]:
        """Add to a timeout error what the magics can do next."""
        try:
            yield
        except ExecutionTimeout as exc:
            raise ExecutionTimeout(
                f"Execution timed out after {timeout:g} seconds; it goes on: "
                f"`%runtimed replay {cell_id}` shows it, `%runtimed interrupt` ends it",
                **{**exc.data, "timeout_secs": timeout},
            ) from None

    def _finish(self, session: Session, options: RunOptions, live: Live, result: ExecutionResult) -> None:
        if options.out is not None:
            self.namespace[options.out] = result
        self.execution_count = result.execution_count or 0
        if not result.success:
            message = None if live.finished is None else live.finished.message
            raise cell_failed(session.notebook_id, result, message)
        is_routed = self.router.on and options.header == "%%runtimed"
        act_on(self.shell, result.payload, "" if is_routed else options.header)

    def _own_cell(self, session: Session) -> CellId:
        cell_id = frontend_cell_id(self.shell)
        if cell_id is None:
            return new_cell_id()
        whole_in = None if self.router.whole_cell() is None else session.notebook_id
        return document_cell_id(notebook_file(self.shell), cell_id, whole_in)

    # --- the commands of %runtimed ---

    def _command(self, command: Command) -> None:
        match command.name:
            case "sessions":
                _say(reports.sessions_report(self.sessions.current, self.browsing.session_id))
            case "env":
                chosen = self.chosen(command.notebook_id)
                if chosen is not None:
                    self._check_is_notebook(chosen)
                if command.notebook_id is not None and not self.sessions.is_joined(command.notebook_id):
                    reports.check_begun(command.notebook_id)
                _say(reports.env_report(chosen, self.kernel_type, self.env, notebook_file(self.shell)))
            case "on":
                self._set_on(command.notebook_id)
            case "off":
                self._set_off()
            case "connect" if _is_browser(str(command.notebook_id)):
                self._connect_browser(command)
            case "connect":
                self._connect(command)
            case "stop" if command.notebook_id is not None and _is_browser(command.notebook_id):
                self.browsing.stop(command.notebook_id, label=self._label())
            case "stop":
                self._stop(command.notebook_id)
            case "env trust":
                self._trust(command.notebook_id)
            case _:
                self._on_session(command, self._existing(command.notebook_id))

    def _connect_browser(self, command: Command) -> None:
        if command.kernel_type is not None or command.env is not None:
            raise UsageError(
                f"%runtimed connect: session {command.notebook_id} is a browser, which has no kernel and no environment"
            )
        self.browsing.join(str(command.notebook_id), label=self._label(), timeout_minutes=self.browser_timeout)

    def _connect(self, command: Command) -> None:
        session = self._join(str(command.notebook_id))
        note = reports.kernel_note(session.notebook_id, command.kernel_type, command.env)
        if note is not None:
            _say(note)
        self.sessions.current = session.notebook_id
        if command.kernel_type is not None or command.env is not None:
            with ProgressLine(self.shell) as progress:
                session.start_kernel(
                    command.kernel_type or self.kernel_type,
                    command.env or self.env,
                    notebook_file(self.shell),
                    progress=progress,
                )
        env_source = session.env_source
        state = (
            "no kernel runs; the first cell starts one" if env_source is None else f"a kernel runs, env {env_source}"
        )
        _say(f"Joined session {session.notebook_id}: {state}")

    def send_all(self, notebook_id: str) -> Session:
        """Send every following cell to a session, and return its handle."""
        session = self._join(notebook_id)
        self.sessions.current = session.notebook_id
        self.router.on = True
        return session

    def _set_on(self, notebook_id: str | None) -> None:
        session = self.send_all(self.chosen(notebook_id) or new_notebook_id())
        _say(
            f"Every following cell goes to session {session.notebook_id}; `%%local` as a cell's first line keeps that "
            "cell here, `%runtimed off` ends it"
        )

    def _set_off(self) -> None:
        was_on, self.router.on = self.router.on, False
        _say("Cells run here again" if was_on else "Cells run here; `%runtimed on` sends them to a session")

    def _on_session(self, command: Command, session: Session) -> None:
        notebook_id = session.notebook_id
        match command.name:
            case "cells":
                _say(reports.cells_report(session))
            case "replay":
                self._replay(session, command.cell_id)
            case "pull" | "push":
                self._copy(session, command)
            case "interrupt":
                session.interrupt()
                _say(f"Interrupted what runs in session {notebook_id}")
            case "restart":
                session.restart_kernel()
                _say(f"The kernel of session {notebook_id} is a fresh one")

    def _copy(self, session: Session, command: Command) -> None:
        """Copy variables between the two kernels, one after the other up to the first that is refused."""
        sizes: list[int] = []
        for name in command.variables:
            new = command.new_name or name
            if command.name == "pull":
                value = self.namespace[new] = session.get(name, arrow=True, on_size=sizes.append)
            elif name in self.namespace:
                value = self.namespace[name]
                session.put(new, value, arrow=True, on_size=sizes.append)
            else:
                raise UsageError(f"%runtimed push: there is no variable {name!r} here")
            done, place = ("Pulled", "from") if command.name == "pull" else ("Pushed", "into")
            kind, size = type(value).__name__, readable_size(sizes[-1])
            _say(f"{done} {name}{f' as {new}' if new != name else ''} ({kind}, {size}) {place} {session.notebook_id}")

    def _trust(self, notebook_id: str | None) -> None:
        """Consent to what a session asks for, which may have yet to begin."""
        session = self._join(self._needed(notebook_id))
        explained = session.trust_environment(notebook_file(self.shell))
        _say(f"Session {session.notebook_id} may install what it asks for:\n{explained}")

    def _stop(self, notebook_id: str | None) -> None:
        """End a session and leave it.

        Raises:
            SessionNotFound: If it never began.
        """
        session = self._existing(notebook_id)
        try:
            session.stop()
        except SessionNotFound:
            self.sessions.forget(session.notebook_id)
            raise
        self.sessions.forget(session.notebook_id)
        if self.router.on and self.sessions.current is None:
            self._set_off()
        name = session.notebook_id
        _say(f"Stopped session {name}; its cells stay readable (`%runtimed connect {name}`)")

    def _replay(self, session: Session, typed: str | None) -> None:
        queue = read_queue(session)
        if typed is not None:
            cell_id = reports.cell_named(session.notebook_id, typed)
            execution_id = session.get_cell(cell_id, outputs=False).execution_id
        elif queue.executions:
            execution_id, cell_id = queue.executions[0].execution_id, queue.executions[0].cell_id
        elif (last := reports.last_execution(session.notebook_id)) is not None:
            execution_id, cell_id = last.execution_id, last.cell_id
        else:
            _say(f"Session {session.notebook_id} has executed nothing yet.")
            return
        running = next((entry for entry in queue.executions if entry.execution_id == execution_id), None)
        if running is not None:
            _say(f"Cell {cell_id}: {described(running)}")
        elif typed is None:
            _say(f"Cell {cell_id}:")
        if execution_id is None or not replay(session, execution_id):
            _say(f"Cell {cell_id} has no outputs.")

    # --- sessions ---

    def chosen(self, notebook_id: str | None) -> str | None:
        """Return the id of the session to use: the named one, the joined one, or the notebook's own."""
        return self.sessions.chosen(notebook_id, notebook_file(self.shell))

    def _needed(self, notebook_id: str | None) -> str:
        chosen = self.chosen(notebook_id)
        if chosen is None:
            raise UsageError("%runtimed: no session is joined; `%runtimed connect ID` joins one")
        return chosen

    def _existing(self, notebook_id: str | None) -> Session:
        """Join a session that has begun, or that this shell has joined already.

        Raises:
            SessionNotFound: If it never began. Nothing is joined then: its id may be a mistyped one.
        """
        chosen = self._needed(notebook_id)
        was_joined = self.sessions.is_joined(chosen)
        session = self._join(chosen)
        if not was_joined:
            try:
                reports.check_begun(chosen)
            except SessionNotFound:
                self.sessions.forget(chosen)
                raise
        return session

    def _join(self, notebook_id: str) -> Session:
        if not self.sessions.is_joined(notebook_id):
            self._check_is_notebook(notebook_id)
        return self.sessions.join(notebook_id, label=self._label(), notebook=notebook_file(self.shell))

    @staticmethod
    def _check_is_notebook(notebook_id: str) -> None:
        if _is_browser(notebook_id):
            raise SessionError(
                f"Session {notebook_id!r} is a browser, not a notebook: `%runtimed connect {notebook_id}` joins it, "
                "and then `%runtimed browser …` drives it",
                session_id=notebook_id,
            )

    def _label(self) -> str:
        path: Path | None = notebook_file(self.shell)
        # A file may have any name, a label may not.
        name = "ipython" if path is None else printable(path.name)[:MAX_LABEL]
        return self.label or name


def _is_browser(session_id: str) -> bool:
    status = reports.status_of(session_id)
    return status is not None and status.kind == "browser"


def _say(text: str) -> None:
    show_note(printable(text, "\n"))
