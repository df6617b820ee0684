"""Texts that are no text, from clients that do not check what they send: each is refused, and nothing else happens."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest

from runtimed import Session, default_socket_path
from runtimed.protocol.browser_operations import StartBrowser
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.document_operations import ImportedCell
from runtimed.protocol.execution_operations import Enqueue
from runtimed.protocol.kernel_operations import DescribeProcess, KernelChoice
from runtimed.protocol.messages import PROTOCOL_VERSION, Failure, Hello, Reply, Request, Welcome
from runtimed.protocol.operation import Operation
from tests.fuzzing import every_operation
from tests.wire import Wire

SURROGATE = "a\ud800"


@pytest.fixture(scope="module")
def wire(shared_daemon) -> Iterator[Wire]:
    """A greeted connection, beside a session without a kernel."""
    with Session("fuzz") as session:
        session.create_cell("1", cell_id="c")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(default_socket_path()))
        wire = Wire(sock)
        wire.send(Hello(PROTOCOL_VERSION, "0", "tester", None, os.getpid()))
        assert isinstance(wire.receive(time.monotonic() + 20), Welcome)
        yield wire
        wire.close()
        assert session.get_cell("c").source == "1"
        assert len(session.get_cells()) == 1
        session.stop()


def texts() -> Iterator[Any]:
    """Every text of every operation, those of nested values included, with a lone surrogate."""
    for operation in every_operation(ClientOperation):
        if isinstance(operation, DescribeProcess | StartBrowser):
            continue  # what comes from the operating system
        for field in msgspec.structs.fields(type(operation)):
            changed: list[Any] = []
            value = getattr(operation, field.name)
            if field.name in ("cookie_file", "events"):
                continue  # a path; bytes
            if field.type is str or (get_origin(field.type) in (Union, UnionType) and str in get_args(field.type)):
                changed = [SURROGATE]
            elif field.name == "cells":
                cell = ImportedCell(cell_id="d", cell_type="code", source="1")
                fields: list[dict[str, Any]] = [{"metadata": {SURROGATE: "1"}}, {"metadata": {"x": SURROGATE}}]
                fields += [{name: SURROGATE} for name in ("cell_id", "after", "source", "base", "execution_id")]
                changed = [[msgspec.structs.replace(cell, **wrong)] for wrong in fields]
            elif isinstance(value, list):
                changed = [[{"name": SURROGATE} if field.name == "cookies" else SURROGATE]]
            elif isinstance(value, dict):
                changed = [{SURROGATE: "x"}, {"x": SURROGATE}]
            elif field.type is KernelChoice:
                changed = [KernelChoice(kernel_type=SURROGATE)]
            for number, text in enumerate(changed):
                wrong = msgspec.structs.replace(operation, **{field.name: text})
                yield pytest.param(wrong, id=f"{type(operation).__name__}.{field.name}-{number}")


@pytest.mark.parametrize("operation", list(texts()))
def test_a_text_with_a_lone_surrogate_is_refused_and_its_connection_goes_on(wire, operation, request):
    wire.send(Request(1, operation))

    answer = wire.receive(time.monotonic() + 20)

    is_session_id = ".notebook_id-" in request.node.name
    assert isinstance(answer, Failure)
    assert answer.error == ("SessionError" if is_session_id else "InvalidArgument")
    assert "lone surrogate" in answer.message


def test_code_is_refused_before_a_kernel_starts_for_it(wire):
    operation: Operation[Any] = Enqueue(
        notebook_id="fuzz", execution_id=SURROGATE, cell_id="c", watch=False, kernel=KernelChoice()
    )
    wire.send(Request(1, DescribeProcess(cwd="/", interpreter=SURROGATE, environment={"A": SURROGATE})))
    assert isinstance(wire.receive(time.monotonic() + 20), Reply)
    wire.send(Request(2, operation))
    answer = wire.receive(time.monotonic() + 20)
    assert isinstance(answer, Failure)
    assert (answer.error, answer.data) == ("InvalidArgument", {"argument": "execution_id"})
