"""A session that is deleted is gone with its data, and its id is as if it had never been used."""

from pathlib import Path
from typing import Any

import pytest

from runtimed import SessionError, SessionNotFound
from runtimed.ids import SessionId, stored_name
from tests.client.faces import on_one_face


def files_of(folder: Path, session_id: str) -> list[Path]:
    return sorted(folder.rglob(f"*{stored_name(SessionId(session_id))}*"))


@on_one_face
def test_a_deleted_session_is_gone_with_its_data_and_its_id_is_free(face: Any, shared_daemon: Path):
    name = f"gone {face.name}"
    with face.session(name, label="a scientist") as session:
        session.run("x = 1")
        session.create_cell("# kept by nobody", "markdown")
        session.stop()
    client = face.client()
    assert files_of(shared_daemon, name) != []
    client.sessions.delete(name)
    assert files_of(shared_daemon, name) == []
    assert name not in [status.session_id for status in client.sessions.list(page_size=1000)]
    for ask in (client.sessions.get, client.sessions.log, client.sessions.delete):
        with pytest.raises(SessionNotFound, match=f"No session has the id '{name}'"):
            ask(name)
    with face.session(name) as session:
        assert session.get_cells() == []
        session.create_cell("y = 2")
        assert [cell.source for cell in session.get_cells()] == ["y = 2"]
        assert session.run("'x' in globals()").display_data[0].data == {"text/plain": "False"}
        status = session.status()
        assert (status.status, status.label) == ("active", None)
        session.stop()
    log = [(entry.action, entry.client_id is None) for entry in client.sessions.log(name)]
    assert log[-1] == ("session_deleted", False)
    assert "session_started" in [action for action, _by_itself in log]


def test_an_active_session_is_not_deleted_and_one_that_never_was_is_not_found(face: Any, shared_daemon: Path):
    name = f"active {face.name}"
    client = face.client()
    with face.session(name) as session:
        session.create_cell("x = 1")
        with pytest.raises(SessionError, match="is active; stop it before it is deleted") as caught:
            client.sessions.delete(name)
        assert caught.value.session_id == name
        assert [cell.source for cell in session.get_cells()] == ["x = 1"]
        session.stop()
    with pytest.raises(SessionNotFound):
        client.sessions.delete("nobody's")
    with pytest.raises(SessionError, match="must not be empty"):
        client.sessions.delete("")
    client.sessions.delete(name)


def test_a_client_that_is_still_in_it_finds_it_empty(face: Any, shared_daemon: Path):
    name = f"joined {face.name}"
    with face.session(name) as session:
        session.create_cell("x = 1")
        face.client().sessions.stop(name)
        face.client().sessions.delete(name)
        assert session.get_cells() == []
        cell = session.create_cell("x = 2")
        assert [(one.id, one.source) for one in session.get_cells()] == [(cell, "x = 2")]
        face.client().sessions.stop(name)
