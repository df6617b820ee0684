"""A next input that a session's kernel gives reaches the shell that ran the cell, and leads back to the session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ipython.conftest import Shell


@pytest.fixture
def inputs(in_work: Shell, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What the shell's frontend is given, and whether that replaces the cell."""
    given: list[tuple[str, bool]] = []
    monkeypatch.setattr(in_work.ip, "set_next_input", lambda text, replace=False: given.append((text, replace)))
    return given


def test_a_loaded_file_replaces_the_cell_and_runs_in_the_same_session(
    in_work: Shell, inputs: list[tuple[str, bool]], tmp_path: Path
) -> None:
    (tmp_path / "f.py").write_text("x = 1\n")
    header = "%%runtimed work --timeout 60"
    in_work.run(f"{header}\n%load {tmp_path}/f.py")
    assert inputs == [(f"{header}\n# %load {tmp_path}/f.py\nx = 1\n", True)]


def test_a_next_input_needs_no_header_where_every_cell_goes_to_the_session(
    in_work: Shell, inputs: list[tuple[str, bool]]
) -> None:
    in_work.run("%runtimed on")
    in_work.run("get_ipython().set_next_input('y')")
    in_work.run("%runtimed off")
    in_work.run("%%runtimed\nget_ipython().set_next_input('z')")
    assert inputs == [("y", False), ("%%runtimed\nz", False)]


def test_a_cell_of_the_document_keeps_its_magic(in_work: Shell, inputs: list[tuple[str, bool]]) -> None:
    in_work.run("%%runtimed --out result --silent\nget_ipython().set_next_input('z')")
    cell_id = in_work.ip.user_ns["result"].cell_id
    inputs.clear()
    in_work.run(f"%runtimed_cell {cell_id}")
    assert inputs == [(f"%%runtimed_cell {cell_id}\nz", False)]


def test_a_file_to_edit_is_named(in_work: Shell, inputs: list[tuple[str, bool]], tmp_path: Path) -> None:
    (tmp_path / "f.py").touch()
    said = in_work.run(f"%%runtimed\n%edit {tmp_path}/f.py")
    assert f"[the session's kernel asks to edit {tmp_path}/f.py]\n" in said
    assert inputs == []


def test_a_cell_that_fails_gives_no_next_input(in_work: Shell, inputs: list[tuple[str, bool]]) -> None:
    in_work.fail("%%runtimed\nget_ipython().set_next_input('z'); 1 / 0")
    assert inputs == []
