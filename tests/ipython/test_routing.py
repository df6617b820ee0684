"""`%runtimed on`: every following cell goes to the session, but for what is of this shell."""

from collections.abc import Callable

import pytest
from IPython.core.error import UsageError

from runtimed import Session
from runtimed.ipython.routing import Place, Router
from tests.ipython.conftest import Shell


@pytest.fixture
def on(in_work: Shell) -> Shell:
    """A shell whose cells go to the session `work`."""
    assert in_work.run("%runtimed on") == (
        "Every following cell goes to session work; `%%local` as a cell's first line keeps that cell here, "
        "`%runtimed off` ends it\n"
    )
    return in_work


class Bare:
    """What a router needs of a shell."""

    def __init__(self, content: dict[str, object] | None = None) -> None:
        self.input_transformers_cleanup: list[Callable[[list[str]], list[str]]] = []
        if content is not None:
            self.kernel = object()
            self.get_parent = lambda: {"content": content}


def routed(text: str, content: dict[str, object] | None = None) -> str:
    router = Router(Bare(content), lambda: "work")
    router.on = True
    return "".join(router.transform(text.splitlines(keepends=True)))


@pytest.mark.parametrize(
    "cell",
    [
        "x = 1\n",
        "\n\n# a comment\nx = 1\n",
        "%%time\nx = 1\n",
        "%matplotlib inline\n",
        "%load_ext autoreload\n",
        "%load_ext runtimed_of_somebody\n",
        "!ls\n",
        "x?\n",
        "%%runtimed_of_somebody\n",
        "exit_code = 1\n",
        "# %runtimed off\nx = 1\n",
        "%%locals\n",
    ],
)
def test_a_cell_goes_to_the_session(cell: str) -> None:
    assert routed(cell) == "%%runtimed\n" + cell.lstrip("\n")


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "\n \n",
        "%%runtimed other --silent\nx = 1\n",
        "%%runtimed\nx = 1\n",
        "%%runtimed?\n",
        "%%runtimed_cell c\nx = 1\n",
        "%runtimed off\n",
        "%runtimed\n",
        "%runtimed?\n",
        "?%runtimed\n",
        "%runtimed_cell c\n",
        "# ends it\n\n%runtimed cells\n%runtimed off\n",
        "%load_ext runtimed\n",
        "%unload_ext runtimed\n",
        "%reload_ext runtimed\n",
        "%config RuntimedMagics.timeout = 60\n",
        "exit\n",
        "quit()\n",
    ],
)
def test_what_is_of_this_shell_stays_here(cell: str) -> None:
    assert routed(cell) == cell


def test_local_is_taken_off() -> None:
    assert routed("%%local\n%%time\nx = 1\n") == "%%time\nx = 1\n"
    assert routed("%%local  \nx = 1\n") == "x = 1\n"
    router = Router(Bare(), lambda: None)
    assert router.transform(["%%local\n", "x = 1\n"]) == ["x = 1\n"], "also while cells run here"


def test_what_a_frontend_runs_on_its_own_account_stays_here() -> None:
    of_a_person: dict[str, object] = {"silent": False, "store_history": True}
    assert routed("x\n", of_a_person) == "%%runtimed\nx\n"
    assert routed("exit()\n", of_a_person) == "%%runtimed\nexit()\n", "a notebook has no shell that it could leave"
    assert routed("x\n", {**of_a_person, "silent": True}) == "x\n"
    assert routed("x\n", {**of_a_person, "store_history": False}) == "x\n"


def test_a_cell_for_both_is_refused() -> None:
    with pytest.raises(UsageError, match="put it into a cell of its own"):
        routed("x = 1\n%runtimed off\n")


def test_a_cursor_is_in_the_session_s_code_or_here() -> None:
    router = Router(Bare(), lambda: "work")
    text = "%%runtimed --timeout 5 other\nab\n"
    assert router.place(text, 3) is None
    assert router.place(text, len(text) - 1) == Place("other", "ab\n", 2)
    assert router.place("%%runtimed_cell c other\nab", 25) == Place("other", "ab", 1)
    assert router.place("%%runtimed_cell c\nab", 19) == Place(None, "ab", 1)
    assert router.place("ab", 1) is None
    router.on = True
    assert router.place("ab", 1) == Place(None, "ab", 1)
    assert router.place("", 0) == Place(None, "", 0)
    assert router.place("%%local\nab", 9) is None
    assert router.place("%runtimed of", 12) is None


def test_cells_run_in_the_session_until_it_is_off(on: Shell, work: Session) -> None:
    on.ip.user_ns.pop("routed_name", None)
    assert on.run("routed_name = 6 * 7\nprint(routed_name)") == "42\n"
    assert "routed_name" not in on.ip.user_ns
    assert work.get_cells()[-1].source == "routed_name = 6 * 7\nprint(routed_name)"
    assert on.run("%%local\nhere = 1\nprint(here)") == "1\n"
    assert on.run("%%local\nprint('routed_name' in dir())") == "False\n"
    error, _ = on.fail("1/0")
    assert type(error).__name__ == "CellFailed"
    assert "cells     all go to the session" in on.run("%runtimed")
    assert on.run("%runtimed off") == "Cells run here again\n"
    assert on.run("print('routed_name' in dir())") == "False\n"
    assert on.run("%runtimed off") == "Cells run here; `%runtimed on` sends them to a session\n"


def test_local_with_words_is_refused_by_a_sentence(shell: Shell) -> None:
    error, _ = shell.fail("%%local x\n1")
    assert str(error) == "%%local takes nothing, not 'x'"


def test_a_session_that_is_stopped_here_takes_no_more_cells(shell: Shell) -> None:
    shell.run("%runtimed on soon-stopped")
    assert "soon-stopped" in shell.run("%runtimed")
    assert shell.run("%runtimed stop").startswith("Cells run here again\n")
    assert shell.run("print('here')") == "here\n"


def test_unloading_ends_it(on: Shell) -> None:
    magics = on.magics
    on.run("%unload_ext runtimed")
    assert magics.router.transform not in on.ip.input_transformers_cleanup
    assert on.run("print('here')") == "here\n"


def test_tab_offers_the_session_s_names_and_no_others(on: Shell, work: Session) -> None:
    work.run("of_the_session = 1")
    work.complete("of_the")  # a kernel's first completion imports much, and Tab does not wait for long
    on.ip.user_ns["of_the_shell"] = 1
    assert on.complete("of_the_") == ["of_the_session"]
    assert on.complete("%%local\nof_the_") == ["%%local\nof_the_shell"]
    assert on.complete("of_the_shel") == ["of_the_shel"], "nothing new"
    assert "%runtimed" in on.complete("%runti")
    assert "%timeit" in on.complete("%timei")
    on.run("%runtimed off")
    assert on.complete("%%runtimed\nof_the_shel") == ["%%runtimed\nof_the_shel"]
    assert on.complete("%%runtimed no-such-session\nof_the_shel") == ["%%runtimed no-such-session\nof_the_shel"]
    assert on.complete("of_the_") == ["of_the_shell"]
