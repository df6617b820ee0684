"""What a caller may not put into an operation: every field of each, with what to do instead."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest

from runtimed import InvalidArgument
from runtimed.client.flows import Ask, Follow
from runtimed.protocol import codec
from runtimed.protocol.arguments import check_operation, check_values
from runtimed.protocol.bounds import MAX_ITEMS
from runtimed.protocol.browser_operations import Act, SetCookies, StartBrowser
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.comms import CommBody
from runtimed.protocol.document_operations import AddCell, AddDependencies
from runtimed.protocol.execution_operations import Enqueue, Program, Subscribe
from runtimed.protocol.kernel_operations import DescribeProcess, KernelChoice, SendComm, StartKernel
from runtimed.protocol.messages import Request
from runtimed.protocol.operation import Operation
from runtimed.protocol.session_operations import GetAudit, Join, ListSessions
from tests.fuzzing import every_operation

SURROGATE = "a\ud800"
ADVICE = "must be valid Unicode; there is a lone surrogate at 1: remove it, or replace it with text.encode"
OPERATIONS = {type(operation): operation for operation in every_operation(ClientOperation)}
WRONG: tuple[Any, ...] = (
    *(10**30, -(10**30), math.nan, math.inf, -1.5, True, b"bytes", "\ud800", "text", None, object(), [object()]),
    *([5], {5: 5}, {"a": object()}, [[]]),
)


def with_field(operation: Operation[Any], name: str, value: Any) -> Operation[Any]:
    changed: Operation[Any] = msgspec.structs.replace(operation, **{name: value})
    return changed


def fields() -> Iterator[Any]:
    for kind, operation in OPERATIONS.items():
        for name in kind.__struct_fields__:
            yield pytest.param(operation, name, id=f"{kind.__name__}.{name}")


def is_accepted(operation: Operation[Any]) -> bool:
    """Whether the daemon's decoder takes it, and its texts are those of a text."""
    try:
        read = codec.decode_asked_of_daemon(codec.encode_message(Request(1, operation))[4:])
    except Exception:  # noqa: BLE001  # of whatever kind
        return False
    assert isinstance(read, Request)
    try:
        check_values(read.operation)
    except InvalidArgument:
        return False
    return True


def test_every_operation_has_a_good_form():
    assert set(OPERATIONS) == set(get_args(ClientOperation))
    for operation in OPERATIONS.values():
        check_operation(operation)


@pytest.mark.parametrize(("operation", "name"), list(fields()))
def test_a_field_takes_what_the_daemon_takes_and_nothing_else(operation, name):
    refused = 0
    for value in WRONG:
        wrong = with_field(operation, name, value)
        if is_accepted(wrong):
            check_operation(wrong)
            continue
        refused += 1
        with pytest.raises(InvalidArgument) as caught:
            Ask(wrong)
        assert caught.value.argument.removeprefix("a key of ").startswith(name)
        assert ": give " in caught.value.message or ADVICE[:20] in caught.value.message
    assert refused >= 4


SENTENCES: list[tuple[Operation[Any], str]] = [
    (AddCell(notebook_id="n", cell_id=5), "cell_id is of the type int: give str"),  # type: ignore[arg-type]  # as asked
    (AddCell(notebook_id="n", cell_id=None), "cell_id is None: give str"),  # type: ignore[arg-type]  # as asked
    (AddCell(notebook_id="n", cell_id=SURROGATE), f"cell_id {ADVICE}"),
    (
        AddCell(notebook_id="n", cell_id="c", index=10**20),
        "index is 100000000000000000000: give int <= 9007199254740991",
    ),
    (AddCell(notebook_id="n", cell_id="c", index="0"), "index is of the type str: give int or None"),  # type: ignore[arg-type]  # as asked
    (
        AddDependencies(notebook_id="n", manager="pip", packages=[]),  # type: ignore[arg-type]  # as asked
        "manager is 'pip': give 'uv' or 'conda'",
    ),
    (
        ListSessions(status="dead"),  # type: ignore[arg-type]  # as asked
        "status is 'dead': give 'active' or 'closed' or 'error' or 'timed_out' or None",
    ),
    (ListSessions(status="\ud800"), "status must be valid Unicode"),  # type: ignore[arg-type]  # as asked
    (GetAudit(notebook_id="n", page=0), "page is 0: give int >= 1"),
    (Join(notebook_id="n", keep_alive=math.nan), "keep_alive is nan: give float >= 0.0"),
    (Subscribe(notebook_id="n", cell_ids=["c", 5]), "cell_ids[1] is of the type int: give str"),  # type: ignore[list-item]  # as asked
    (Subscribe(notebook_id="n", cell_ids=["c", SURROGATE]), f"cell_ids[1] {ADVICE}"),
    (
        Subscribe(notebook_id="n", cell_ids=["c"] * (MAX_ITEMS + 1)),
        f"cell_ids is of the length {MAX_ITEMS + 1}: give list of length <= {MAX_ITEMS}",
    ),
    (
        Enqueue(notebook_id="n", execution_id="e", cell_id="c", user_expressions={5: "x"}),  # type: ignore[dict-item]  # as asked
        "a key of user_expressions is of the type int: give str",
    ),
    (
        Enqueue(notebook_id="n", execution_id="e", cell_id="c", user_expressions={SURROGATE: "x"}),
        f"a key of user_expressions {ADVICE}",
    ),
    (
        Enqueue(notebook_id="n", execution_id="e", cell_id="c", user_expressions={"a": 1.5}),  # type: ignore[dict-item]  # as asked
        "a value of user_expressions is of the type float: give str",
    ),
    (
        Enqueue(notebook_id="n", execution_id="e", cell_id="c", program={"a": 1}),  # type: ignore[arg-type]  # as asked
        "program is invalid: Object missing required field",
    ),
    (StartKernel(notebook_id="n", kernel=KernelChoice(kernel_type=SURROGATE)), f"kernel_type {ADVICE}"),
    (
        SendComm(notebook_id="n", message=CommBody(msg_type="comm", content="{}")),  # type: ignore[arg-type]  # as asked
        "msg_type is 'comm': give 'comm_open' or 'comm_msg' or 'comm_close'",
    ),
    (Act(notebook_id="n", action={"type": "fill", "text": SURROGATE}), f"action.text {ADVICE}"),
    (Act(notebook_id="n", action={"x": [1.0, math.inf]}), "action.x[1] is inf: give a finite number"),
    (Act(notebook_id="n", action={"x": 2**64}), "action.x is 18446744073709551616: give an int of at most 64 bits"),
    (
        Act(notebook_id="n", action={"x": object()}),
        "action cannot be sent (Encoding objects of type object is unsupported): give texts, numbers, bytes, None, and "
        "lists and dicts of them",
    ),
]


@pytest.mark.parametrize(("operation", "sentence"), SENTENCES, ids=[sentence for _operation, sentence in SENTENCES])
def test_the_sentence_names_the_argument_and_what_it_takes(operation, sentence):
    with pytest.raises(InvalidArgument) as caught:
        check_operation(operation)
    assert caught.value.message.startswith(sentence)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError)


def test_a_value_that_holds_itself_is_refused():
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(InvalidArgument, match="action cannot be sent"):
        Ask(Act(notebook_id="n", action={"x": nested}))


def test_what_comes_from_the_operating_system_may_hold_undecodable_bytes():
    for operation in (
        DescribeProcess(
            environment={"A": SURROGATE, SURROGATE: "B"}, cwd=SURROGATE, interpreter=SURROGATE, uv=SURROGATE
        ),
        StartKernel(notebook_id="n", kernel=KernelChoice(env_source=f"python:/{SURROGATE}", folder=SURROGATE)),
        Enqueue(
            notebook_id="n",
            execution_id="e",
            cell_id="c",
            program=Program(argv=[SURROGATE], cwd=SURROGATE, path=SURROGATE),
        ),
        StartBrowser(notebook_id="n", config={}, environment={"A": SURROGATE}),
        SetCookies(notebook_id="n", cookies=[], cookie_file=SURROGATE),
    ):
        check_operation(operation)


def test_what_is_followed_is_checked_too():
    with pytest.raises(InvalidArgument):
        Follow(Subscribe(notebook_id="n", cell_ids=[5]), lambda _event: None)  # type: ignore[list-item]  # as asked
