"""What Tab offers."""

import contextlib
import socket
import time
from pathlib import Path

import psutil
import pytest

from runtimed import Client, Session
from runtimed.ipython.arguments import COMMANDS, OPTIONS
from runtimed.ipython.asking import DAEMON_PATIENCE
from runtimed.storage.registry_store import RegistryStore
from tests.conftest import own_daemon, processes_of, wait_until
from tests.ipython.conftest import Shell
from tests.old_sessions import closed_row


@pytest.fixture(scope="module")
def cells(work: Session) -> list[str]:
    """The cells of the session `work`; there is one more session, `my other`."""
    work.run("remote_name = 1")
    work.complete("remote")  # a kernel's first completion imports much, and Tab does not wait for long
    with Session("my other") as other:
        other.create_cell("elsewhere")
    return [str(cell_id) for cell_id in work.get_cell_ids()]


@pytest.fixture
def joined(in_work: Shell, cells: list[str]) -> Shell:
    return in_work


def test_options_complete(joined: Shell) -> None:
    assert joined.complete("%%runtimed --") == sorted(f"%%runtimed {option}" for option in OPTIONS)
    assert joined.complete("%%runtimed work --ti") == ["%%runtimed work --timeout"]
    assert "%%runtimed --silent --silent" not in joined.complete("%%runtimed --silent --s")
    assert "%runtimed_cell c --cell" not in joined.complete("%runtimed_cell c --")


def test_session_ids_complete(joined: Shell) -> None:
    assert joined.complete("%%runtimed w") == ["%%runtimed work"]
    assert joined.complete("%runtimed connect w") == ["%runtimed connect work"]
    assert joined.complete("%runtimed stop 'my") == ["%runtimed stop 'my other'"]
    ids = {"%%runtimed work", "%%runtimed 'my other'"}
    assert ids <= set(joined.complete("%%runtimed "))
    assert not [text for text in joined.complete("%%runtimed work ") if "--" not in text]


def test_cell_ids_complete(joined: Shell, cells: list[str]) -> None:
    assert joined.complete("%%runtimed --cell ") == [f"%%runtimed --cell {cell}" for cell in cells]
    assert joined.complete(f"%runtimed replay {cells[0][:12]}") == [f"%runtimed replay {cells[0]}"]
    assert joined.complete("%runtimed_cell cell-") == [f"%runtimed_cell {cell}" for cell in cells]
    assert joined.complete(f"%%runtimed_cell {cells[0]} w") == [f"%%runtimed_cell {cells[0]} work"]


def test_variables_complete_with_the_names_of_the_kernel_that_has_them(joined: Shell) -> None:
    joined.run("local_name = local_other = 1")
    assert joined.complete("%runtimed push local_") == ["%runtimed push local_name", "%runtimed push local_other"]
    assert joined.complete("%runtimed push local_name local_") == ["%runtimed push local_name local_other"]
    assert joined.complete("%runtimed push remote_") == []
    assert joined.complete("%runtimed pull remote_") == ["%runtimed pull remote_name"]
    assert joined.complete("%runtimed pull remote_name remote_") == []
    assert joined.complete("%runtimed pull remote_name --") == ["%runtimed pull remote_name --as"]
    assert joined.complete("%runtimed pull pri") == [], "print is everywhere"


def test_the_cells_of_a_named_session_complete(shell: Shell, cells: list[str]) -> None:
    assert shell.complete("%%runtimed --cell cell") == [], "nothing is joined"
    assert shell.complete("%%runtimed work --cell cell") == [f"%%runtimed work --cell {cell}" for cell in cells]


def test_commands_and_values_complete(joined: Shell) -> None:
    assert joined.complete("%runtimed ") == sorted(f"%runtimed {command}" for command in COMMANDS)
    assert joined.complete("%runtimed re") == ["%runtimed replay", "%runtimed restart"]
    assert joined.complete("%runtimed connect x --") == [
        "%runtimed connect x --env",
        "%runtimed connect x --kernel-type",
    ]
    assert joined.complete("%%runtimed --env cur") == ["%%runtimed --env current"]
    assert joined.complete("%%runtimed --kernel-type ") == [
        "%%runtimed --kernel-type deno",
        "%%runtimed --kernel-type python",
    ]
    joined.ip.user_ns["my_result"] = None
    assert joined.complete("%%runtimed --out my_") == ["%%runtimed --out my_result"]


def test_only_the_first_line_of_a_cell_has_options(joined: Shell) -> None:
    header = "%%runtimed --s"
    assert joined.complete(f"{header}\nx = 1", len(header)) == ["%%runtimed --silent"]
    assert "x = 1\n%%runtimed --silent" not in joined.complete("x = 1\n%%runtimed --s")
    assert joined.complete("x = 1\n%runtimed sess") == ["x = 1\n%runtimed sessions"]


def test_the_code_of_a_cell_completes_with_the_remote_kernel_s_names(joined: Shell) -> None:
    joined.ip.user_ns["remote_name_of_here"] = 1
    assert joined.complete("%%runtimed\nremote_na") == ["%%runtimed\nremote_name"]
    text = "%%runtimed work --silent\nx = remote_na\ny"
    assert joined.complete(text, text.index("\ny")) == ["%%runtimed work --silent\nx = remote_name"]
    assert joined.complete("remote_na") == ["remote_name_of_here"]


LINES = [
    "%%runtimed w",
    "%%runtimed --",
    "%%runtimed work --cell c",
    "%%runtimed work\nzzz_n",
    "%%runtimed_cell c",
    "%%runtimed_cell cell-1 w",
    "%runtimed_cell cell-1 w",
    *(f"%runtimed {command} " for command in COMMANDS),
    "%runtimed browser start ",
    "%runtimed env trust ",
    "%runtimed replay cell-1 ",
]


def test_tab_starts_no_daemon(shell: Shell, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder / "data"))
    offered = {line: shell.complete(line) for line in LINES}
    assert list(short_folder.iterdir()) == []
    assert processes_of(short_folder) == []
    assert offered["%%runtimed --"] == sorted(f"%%runtimed {option}" for option in OPTIONS), "it needs no daemon"
    # One could have started there.
    with Session("here") as here:
        here.create_cell("1")
    assert shell.complete("%%runtimed h") == ["%%runtimed here"]
    Client().shutdown()


def test_tab_starts_no_daemon_in_the_place_of_one_that_ended(
    shell: Shell, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session("work") as session:
        session.create_cell("1")
    shell.run("%runtimed connect work")
    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "the daemon lives on")
    for line in LINES:
        shell.complete(line)
    assert processes_of(data_dir) == []


def test_tab_does_not_wait_for_a_daemon_that_is_stuck(shell: Shell, data_dir: Path) -> None:
    with Session("work") as session:
        session.create_cell("1")
        status = Client().status()
        assert status is not None
        stuck = psutil.Process(status.pid)
        stuck.suspend()
        waiting: list[socket.socket] = []
        try:
            began = time.monotonic()
            assert "%%runtimed work" not in shell.complete("%%runtimed w")
            assert not [text for text in shell.complete("%%runtimed work --cell c") if "cell-" in text]
            assert time.monotonic() - began < 2 * DAEMON_PATIENCE + 2

            # As soon as it takes no more connections, even connecting would wait.
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                    waiting[-1].setblocking(False)
                    waiting[-1].connect(status.socket_path)
            began = time.monotonic()
            assert "%%runtimed work" not in shell.complete("%%runtimed w")
            assert time.monotonic() - began < DAEMON_PATIENCE + 2
        finally:
            stuck.resume()
            for sock in waiting:
                sock.close()
        wait_until(lambda: shell.complete("%%runtimed w") == ["%%runtimed work"], "it does not go on")


def test_all_of_thousands_of_sessions_and_cells_complete(shell: Shell, short_folder: Path) -> None:
    ids = [f"{name}-{number}" for name in ("plan", "report") for number in range(1300)]
    with RegistryStore(short_folder / "registry.db") as store, store.transaction():
        for number, session_id in enumerate(ids):
            store.put(closed_row(session_id, accessed_at=float(number)))
    with own_daemon(short_folder), Session("cells") as session:
        cells = [session.create_cell("x") for _ in range(150)]
        # IPython shows 500 at most. These are those that were used longest ago.
        assert shell.complete("%%runtimed plan-1") == [
            f"%%runtimed {session_id}" for session_id in sorted(ids) if session_id.startswith("plan-1")
        ]
        assert shell.complete("%%runtimed cells --cell ") == [
            f"%%runtimed cells --cell {cell}" for cell in sorted(cells)
        ]
