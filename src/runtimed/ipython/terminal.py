"""A terminal on one session: IPython's prompt, whose every cell runs in the session, and what others run above it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

from IPython.terminal.interactiveshell import TerminalInteractiveShell
from IPython.terminal.ipapp import load_default_config
from IPython.terminal.ptutils import IPythonPTCompleter
from prompt_toolkit.completion import CompleteEvent, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import PygmentsTokens
from prompt_toolkit.history import History, ThreadedHistory
from prompt_toolkit.patch_stdout import patch_stdout

from runtimed.client import Client, Session
from runtimed.display import show_note
from runtimed.errors import RuntimedError
from runtimed.ipython.colleagues import Colleagues
from runtimed.ipython.extension import load, unload
from runtimed.ipython.failures import CellFailed
from runtimed.ipython.magics import RuntimedMagics
from runtimed.texts import printable

__all__ = ["SessionShell", "open_terminal"]

# IPython annotates little of them.
_load_config: Any = load_default_config
_Shell: Any = TerminalInteractiveShell
_ShellCompleter: Any = IPythonPTCompleter

MAX_HISTORY: Final = 1000
"""Most pieces of code that the history begins with."""

ENDING: Final = 5.0
"""Seconds that the end of a terminal waits for its threads."""


def open_terminal(notebook_id: str, *, label: str, kernel_type: str, env_source: str) -> None:
    """Run a terminal on a session until its person leaves; the session lives on.

    IPython's own settings apply; its startup files, which are code for another kernel, do not run.

    Args:
        notebook_id: The session.
        label: This client's name for other people.
        kernel_type: Language of a kernel that is started.
        env_source: Environment of a kernel that is started; see `Session.start_kernel`.

    Raises:
        SessionError: If the session is a browser.
        DaemonUnavailable: If no daemon can be reached or started.
    """
    config = _load_config()
    config.RuntimedMagics.label = label
    config.RuntimedMagics.kernel_type = kernel_type
    config.RuntimedMagics.env = env_source
    config.HistoryManager.enabled = False  # the history is the session's
    config.TerminalInteractiveShell.confirm_exit = False
    shell = SessionShell.instance(config=config)
    try:
        shell.work_in(notebook_id)
        shell.mainloop()
    finally:
        shell.leave()
        SessionShell.clear_instance()
    show_note(printable(f"Left session {notebook_id}, which lives on"))


class SessionShell(_Shell):  # type: ignore[misc]  # see there
    """IPython's terminal for one session."""

    rl_next_input: str | None = None

    def __init__(self, **options: Any) -> None:
        self._screen = threading.RLock()
        self._session: Session | None = None
        self._colleagues: Colleagues | None = None
        self._threads: list[threading.Thread] = []
        super().__init__(**options)
        load(self)
        self._magics: RuntimedMagics = next(one for one in self.configurables if isinstance(one, RuntimedMagics))

    def work_in(self, notebook_id: str) -> None:
        """Join a session, start its kernel if none runs, and show what others run there. Returns at once."""
        self._session = session = self._magics.send_all(notebook_id)
        history = ThreadedHistory(_SessionHistory(session))
        self._colleagues = colleagues = Colleagues(
            session, self._screen, lambda code: self._add_to_history(history, code), self._set_count
        )
        colleagues.read_count()
        if self.pt_app is not None:  # a real terminal
            self.pt_app.history = self.pt_app.default_buffer.history = history
            self.pt_app.completer = _Completer(self, self._screen)
        for work in (colleagues.watch, self._start_kernel):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._threads.append(thread)

    def leave(self) -> None:
        """Leave the session, which lives on. Idempotent."""
        unload(self)
        for thread in self._threads:
            thread.join(ENDING)
        self._threads.clear()

    # --- what IPython calls ---

    def prompt_for_code(self) -> str:
        """Return the next cell; what is printed meanwhile appears above the prompt."""
        default, self.rl_next_input = self.rl_next_input or "", None
        with self._printing_above():
            code: str = self.pt_app.prompt(default=default, inputhook=self._inputhook, **self._extra_prompt_options())
        return code

    def check_complete(self, code: str) -> tuple[str, str]:
        """Return whether a cell is `complete`, `incomplete` or `invalid`, and the next line's indent."""
        if self._magics.kernel_type == "python":
            status, indent = super().check_complete(code)
            return status, indent
        # Deno's kernel takes all code for complete: here brackets go on, and an empty line ends the cell.
        lines = code.split("\n")
        is_open = sum(code.count(one) for one in "([{") > sum(code.count(one) for one in ")]}")
        return ("incomplete" if is_open and lines[-1].strip() else "complete"), ""

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **options: Any) -> None:
        """Show an exception, but for that of a remote cell whose traceback is on the screen already."""
        error = self._get_exc_info(exc_tuple)[1]
        if not (isinstance(error, CellFailed) and error.result.error is not None):
            super().showtraceback(exc_tuple, *args, **options)

    def run_cell(self, *args: Any, **options: Any) -> Any:
        """Run a cell, and leave if it has ended the session."""
        result = super().run_cell(*args, **options)
        if self._colleagues is not None:
            latest, self._magics.execution_count = self._magics.execution_count, 0
            self._colleagues.note(latest)  # IPython counts the cells of this terminal
        if self._magics.sessions.current is None:
            self.ask_exit()
        return result

    def _extra_prompt_options(self) -> dict[str, Any]:
        # The prompt's number changes while it waits, with what others run.
        message = lambda: PygmentsTokens(self.prompts.in_prompt_tokens())  # noqa: E731  # read at each drawing
        return {**super()._extra_prompt_options(), "message": message}

    # --- helpers ---

    @contextlib.contextmanager
    def _printing_above(self) -> Iterator[None]:
        patch = patch_stdout(raw=True)
        # Whoever prints from another thread has either stream whole: a text for one that is just closed would be lost.
        with self._screen:
            patch.__enter__()
        try:
            yield
        finally:
            with self._screen:
                patch.__exit__(None, None, None)

    def _start_kernel(self) -> None:
        session, magics = self._session, self._magics
        if session is None:
            return
        try:
            session.start_kernel(magics.kernel_type, magics.env, progress=_Announced(self._screen))
            magics.kernel_type = session.status().kernel_type or magics.kernel_type
        except RuntimedError as exc:
            if session.is_connected:
                with self._screen:
                    show_note(printable(exc.message, "\n"))

    def _set_count(self, number: int) -> None:
        self.execution_count = number
        if self.pt_app is not None:
            self.pt_app.app.invalidate()

    def _add_to_history(self, history: History, code: str) -> None:
        history.append_string(code)
        app = self.pt_app.app if self.pt_app is not None else None
        if app is not None and app.loop is not None and app.is_running:
            app.loop.call_soon_threadsafe(self._reload_history)

    def _reload_history(self) -> None:
        # A prompt reads the history when it begins; one at which nothing is typed begins anew.
        buffer = self.pt_app.default_buffer
        if not buffer.text and not buffer.complete_state:
            buffer.reset()


class _SessionHistory(History):
    """The code that ran in a session, the latest first."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def load_history_strings(self) -> Iterable[str]:
        """See `History`."""
        with contextlib.suppress(RuntimedError):
            yield from self._latest()

    def _latest(self) -> Iterator[str]:
        sources = {
            cell.id: cell.source.rstrip()
            for cell in self._session.iter_cells(outputs=False)
            if cell.execution_id is not None and cell.source.strip()
        }
        if not sources:
            return
        recent = [one.cell_id for one in Client().sessions.find_executions(self._session.notebook_id, "")]
        order = dict.fromkeys([*recent, *reversed(sources)])
        yield from [sources[cell_id] for cell_id in order if cell_id in sources][:MAX_HISTORY]

    def store_string(self, string: str) -> None:
        """See `History`; the session stores what runs."""


class _Completer(_ShellCompleter):  # type: ignore[misc]  # see there
    """IPython's completer, which turns standard output to itself while it works: nobody else may print then."""

    def __init__(self, shell: Any, screen: threading.RLock) -> None:
        super().__init__(shell=shell)
        self._screen = screen

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        with self._screen:
            found = list(super().get_completions(document, complete_event))
        yield from found


class _Announced:
    """Prints which environment a kernel that was started has; see `Progress`."""

    def __init__(self, screen: threading.RLock) -> None:
        self._screen = screen

    def show(self, message: str, done: int | None = None, total: int | None = None) -> None:
        """See `Progress`: a step cannot be written over above a prompt."""

    def announce(self, text: str) -> None:
        """See `Progress`."""
        with self._screen:
            show_note(printable(text))
