"""Outputs that a client brings with cells of a file: what is no output is refused, and half of them are not shown."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from runtimed import Client, Session, default_socket_path
from runtimed.protocol.codec import encode_event
from runtimed.protocol.document_operations import ImportCells, ImportedCell, ImportOutputs, PutBlob
from runtimed.protocol.events import Display, Failed, Finished, Queued, Stream
from runtimed.protocol.messages import PROTOCOL_VERSION, Failure, Hello, Message, Reply, Request, Welcome
from runtimed.protocol.operation import Operation
from tests.wire import Wire

ID = "imported"
NUMBERS = itertools.count(1)
VALUE = b"a picture"
NAME = hashlib.sha256(VALUE).hexdigest()


def text(content: str) -> bytes:
    return encode_event(Stream(at=0.0, name="stdout", text=content))


def shown(value: Any) -> bytes:
    return encode_event(Display(at=0.0, kind="display_data", data={"image/png": value}))


@pytest.fixture(scope="module")
def wire(shared_daemon) -> Iterator[Wire]:
    """A greeted connection."""
    with Session(ID) as session:
        session.connect()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(default_socket_path()))
        wire = Wire(sock)
        wire.send(Hello(PROTOCOL_VERSION, "0", "importer", None, os.getpid()))
        assert isinstance(wire.receive(time.monotonic() + 20), Welcome)
        yield wire
        wire.close()


def ask(wire: Wire, operation: Operation[Any]) -> Message:
    number = next(NUMBERS)
    wire.send(Request(number, operation))
    answer = wire.receive(time.monotonic() + 20)
    assert isinstance(answer, Reply | Failure)
    assert answer.id == number
    return answer


def result(answer: Message) -> object:
    assert isinstance(answer, Reply), answer
    return answer.result


def importing(execution_id: str, *events: bytes, brought: int = 0, **more: Any) -> ImportCells:
    fields = {"cell_id": "c", "cell_type": "code", "source": "1", "execution_count": 7, **more}
    cell = ImportedCell(execution_id=execution_id, brought=brought, events=list(events), **fields)
    return ImportCells(notebook_id=ID, cells=[cell])


def bringing(execution_id: str, first: int, *events: bytes) -> ImportOutputs:
    return ImportOutputs(
        notebook_id=ID, execution_id=execution_id, cell_id="c", source="1", first=first, events=list(events)
    )


def texts() -> list[str | None]:
    with Session(ID) as session:
        cell = session.get_cell("c")
        return [] if cell is None else [output.text for output in cell.outputs]


def test_a_cell_shows_its_outputs_with_its_own_request(wire: Wire):
    assert result(ask(wire, importing("before", text("before")))) == {}
    for _ in range(2):
        assert result(ask(wire, bringing("e", 0, text("a\n"), text("b\n")))) == {"stored": 2}
        assert result(ask(wire, bringing("e", 1, text("b\n")))) == {"stored": 2}
        assert result(ask(wire, bringing("e", 3, text("d\n")))) == {"stored": 2}
    assert texts() == ["before"]
    (row,) = Client().sessions.find_executions(ID, "e")
    assert (row.status, row.cell_id) == ("cancelled", "c")
    assert row.ended_at is not None  # retention deletes it if its cell never comes

    missing = ask(wire, importing("e", brought=3))
    assert isinstance(missing, Failure)
    assert "Outputs of the cell c are missing" in missing.message
    for _ in range(2):
        assert result(ask(wire, importing("e", text("c\n"), brought=2))) == {}
        assert texts() == ["a\nb\nc\n"]
    (row,) = Client().sessions.find_executions(ID, "e")
    assert row.status == "ok"
    # It is complete, and nobody adds to it.
    assert result(ask(wire, bringing("e", 4, text("d\n")))) == {"stored": 4}
    assert texts() == ["a\nb\nc\n"]


def test_outputs_that_were_never_brought_are_missing(wire: Wire):
    missing = ask(wire, importing("never", brought=1))
    assert isinstance(missing, Failure)
    assert "open the file again" in missing.message


def test_an_execution_has_the_status_that_it_had(wire: Wire):
    failed = encode_event(Failed(at=0.0, ename="E", evalue="e"))
    assert result(ask(wire, importing("failed", failed, status="error"))) == {}
    (row,) = Client().sessions.find_executions(ID, "failed")
    assert row.status == "error"


def test_a_large_value_is_there_before_its_output(wire: Wire):
    output = shown({"t": "blob", "sha256": NAME, "size": len(VALUE), "text": False})
    for operation in (importing("b", output), bringing("b", 0, output)):
        refused = ask(wire, operation)
        assert isinstance(refused, Failure)
        assert f"refers to the blob {NAME}, which is not stored" in refused.message

    def put(offset: int, piece: bytes) -> object:
        return result(ask(wire, PutBlob(notebook_id=ID, sha256=NAME, size=len(VALUE), offset=offset, piece=piece)))

    assert put(0, VALUE[:3]) == {"stored": 3}
    assert put(3, VALUE[3:]) == {"stored": len(VALUE)}
    assert result(ask(wire, importing("b", output))) == {}
    with Session(ID) as session:
        assert session.get_cell("c").outputs[0].data == {"image/png": VALUE}


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (b"junk", "is unreadable"),
        (encode_event(Queued(at=0.0, author="x")), "is none, but Queued"),
        (encode_event(Finished(at=0.0, status="ok")), "is none, but Finished"),
        (text("x" * (6 * 2**20)), "bytes, and at most 6291456 without large values"),
        (shown(1), "has a value that is neither text nor bytes"),
        (shown({"sha256": NAME}), "is unreadable"),
        (shown({"t": "blob", "sha256": "../x", "size": 1, "text": False}), "is not the name of a blob"),
    ],
)
def test_what_is_no_output_is_refused_and_the_cell_is_as_it_was(wire: Wire, event: bytes, sentence: str):
    assert result(ask(wire, importing("good", text("good")))) == {}
    for operation in (importing("wrong", text("x"), event), bringing("wrong", 0, text("x"), event)):
        refused = ask(wire, operation)
        assert isinstance(refused, Failure)
        assert sentence in refused.message
    assert texts() == ["good"]
    assert Client().sessions.find_executions(ID, "wrong") == []


@pytest.mark.parametrize(
    ("execution_id", "sentence"),
    [("", "must not be empty"), ("x" * 2000, "at most 1024 bytes"), ("two\nlines", "An execution id")],
)
def test_an_id_that_no_execution_has_is_refused(wire: Wire, execution_id: str, sentence: str):
    for operation in (importing(execution_id, text("x")), bringing(execution_id, 0, text("x"))):
        refused = ask(wire, operation)
        assert isinstance(refused, Failure)
        assert sentence in refused.message


def test_only_code_has_outputs(wire: Wire):
    refused = ask(wire, importing("e", text("x"), cell_type="markdown"))
    assert isinstance(refused, Failure)
    assert "has outputs and is no code cell" in refused.message
