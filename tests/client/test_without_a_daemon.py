"""What a client says when it needs a daemon that it does not start itself, or one that cannot be."""

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from runtimed import AsyncClient, Client, DaemonUnavailable, ExecutionTimeout, InvalidAction, default_socket_path
from runtimed.client.calls import Notebook, browser, subscribe
from runtimed.client.identity import HANDSHAKE_DEADLINE
from runtimed.ids import SessionId
from runtimed.transport.sockets import make_private_folder
from tests.client.faces import AsyncFace, SyncFace


@pytest.fixture(params=[SyncFace, AsyncFace], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Iterator[SyncFace | AsyncFace]:
    """One of the two faces, without the daemon that other tests have."""
    face: SyncFace | AsyncFace = request.param()
    yield face
    face.close()


def test_both_faces_say_who_starts_a_daemon(face, short_folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    with pytest.raises(DaemonUnavailable) as caught:
        face.client().sessions.get("s")
    assert caught.value.message == (
        f"No daemon listens on {default_socket_path()}; `runtimed start` starts one, and so does whatever joins a "
        "session"
    )
    assert caught.value.path == str(default_socket_path())
    assert list(short_folder.iterdir()) == []


def test_whoever_has_no_patience_waits_for_no_daemon_that_hangs(short_folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_SOCKET_PATH", str(short_folder / "s"))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short_folder / "s"))
        silent.listen()
        begun = time.monotonic()
        with pytest.raises((DaemonUnavailable, ExecutionTimeout)):
            Client(patience=0.2).sessions.find()
        with pytest.raises((DaemonUnavailable, ExecutionTimeout)):
            asyncio.run(AsyncClient(patience=0.2).sessions.find())
        assert not Client(patience=0.2).ping()
        assert time.monotonic() - begun < HANDSHAKE_DEADLINE / 2


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(short_folder):
    file = short_folder / "file"
    file.touch()
    with pytest.raises(DaemonUnavailable) as caught:
        make_private_folder(file / "data")
    assert caught.value.message == (
        f"Cannot create the folder {file / 'data'}: Not a directory; name another place with RUNTIMED_DATA_DIR or "
        "RUNTIMED_SOCKET_PATH"
    )


def test_the_types_of_events_are_named_when_one_is_none():
    with pytest.raises(ValueError, match=r"no events of the type 'nothing'; those that there are: .*\bdone\b"):
        subscribe(Notebook(SessionId("s")), event_types=["nothing"])  # type: ignore[list-item]  # that is the point


@pytest.mark.parametrize("schema", ["x", ["title"]])
def test_a_schema_that_is_none_is_refused_before_anything_is_asked(schema):
    with pytest.raises(InvalidAction, match=r"schema is a pydantic model, or a JSON schema as a dict; not ['\[]"):
        next(browser.scrape(Notebook(SessionId("n")), schema=schema))
