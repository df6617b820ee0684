"""What Tab offers."""

from pathlib import Path

import pytest

from runtimed import Client, Session
from runtimed.ipython.arguments import COMMANDS, OPTIONS
from tests.ipython.conftest import Shell


@pytest.fixture(scope="module")
def cells(work: Session) -> list[str]:
    """The cells of the session `work`; there is one more session, `my other`."""
    work.run("remote_name = 1")
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


def test_without_a_daemon_nothing_completes_and_none_is_started(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNTIMED_SOCKET_PATH", str(tmp_path / "s"))
    assert "%%runtimed work" not in shell.complete("%%runtimed w")
    assert not [text for text in shell.complete("%%runtimed work --cell c") if "cell-" in text]
    assert shell.complete("%%runtimed x\nzzz_n") == []
    assert not Client().is_running()
