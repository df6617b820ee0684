"""A real shell, and one daemon for the tests of a module."""

import atexit
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from runtimed import Session


@pytest.fixture(scope="module")
def world(shared_daemon: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A daemon and an IPython profile for the tests of one module; no notebook's name is in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.delenv("JPY_SESSION_NAME", raising=False)
        yield shared_daemon


class RecordingPublisher(DisplayPublisher):
    """Keeps what is displayed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.published: list[dict[str, Any]] = []

    def publish(self, data: Any, metadata: Any = None, source: Any = None, **fields: Any) -> None:
        self.published.append({"data": data, "metadata": metadata, **fields})

    def clear_output(self, wait: bool = False) -> None:
        self.published.append({"clear": True, "wait": wait})


class Shell:
    """An InteractiveShell with the magics, and what it displayed."""

    def __init__(self, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.ip = shell
        self.capsys = capsys

    @property
    def magics(self) -> Any:
        return next(found for found in self.ip.configurables if type(found).__name__ == "RuntimedMagics")

    @property
    def published(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ip.display_pub.published
        return found

    def run(self, code: str) -> str:
        """Run a cell that succeeds; return what it printed to standard output."""
        result = self.ip.run_cell(code)
        out, err = self.capsys.readouterr()
        assert result.success, out + err
        assert result.result is None
        return str(out)

    def fail(self, code: str) -> tuple[BaseException, str]:
        """Run a cell that fails; return the exception, and what it printed."""
        result = self.ip.run_cell(code)
        out, err = self.capsys.readouterr()
        error: BaseException = result.error_in_exec
        assert error is not None
        return error, out + err

    def complete(self, text: str, position: int | None = None) -> list[str]:
        """Return what Tab offers, as whole texts up to the cursor."""
        position = len(text) if position is None else position
        from IPython.core.completer import provisionalcompleter

        with provisionalcompleter():
            found = list(self.ip.Completer.completions(text, position))
        return [text[: c.start] + c.text for c in found]


@pytest.fixture
def shell(world: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    """A shell with the magics, which has joined nothing."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    ip = InteractiveShell.instance(config=config, display_pub_class=RecordingPublisher)
    ip.run_cell("%load_ext runtimed")
    yield Shell(ip, capsys)
    ip.run_cell("%unload_ext runtimed")
    atexit.unregister(ip.atexit_operations)
    ip.atexit_operations()
    InteractiveShell.clear_instance()


@pytest.fixture(scope="module")
def work(world: Path) -> Iterator[Session]:
    """The session `work`, whose kernel runs; as another client sees it."""
    session = Session("work", label="observer")
    session.start_kernel(env_source="current")
    yield session
    session.close()


@pytest.fixture
def in_work(shell: Shell, work: Session) -> Shell:
    """A shell that has joined the session `work`."""
    shell.run("%runtimed connect work")
    return shell


def last_stdout(session: Session) -> str:
    """Return what the last cell of a session's document has written so far."""
    cells = session.get_cells()
    return "".join(output.text or "" for output in cells[-1].outputs) if cells else ""
