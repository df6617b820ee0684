"""Each operation names the struct of its reply, and a reply is read as nothing else."""

from typing import Any, get_args

import msgspec
import pytest

from runtimed.errors import ProtocolError
from runtimed.pages import ActionResult
from runtimed.protocol import codec
from runtimed.protocol.browser_operations import Act, Screenshot
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.execution_operations import GetQueue, GetQueueReply
from runtimed.protocol.host_operations import HostOperation
from runtimed.protocol.messages import Reply
from runtimed.protocol.operation import Operation, ReplyBody, read_reply, reply_type
from runtimed.protocol.session_operations import Join, JoinReply

OPERATIONS = sorted({*get_args(ClientOperation), *get_args(HostOperation)}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", OPERATIONS)
def test_every_operation_names_its_reply(kind: type[Operation[Any]]) -> None:
    named: Any = reply_type(kind)

    assert issubclass(getattr(named, "__origin__", named), ReplyBody)


def test_an_operation_that_names_no_reply_is_a_mistake_that_says_so() -> None:
    class Nameless(Operation, frozen=True):  # type: ignore[type-arg]  # which is the mistake
        pass

    with pytest.raises(TypeError, match="Nameless has no type of its reply"):
        reply_type(Nameless)


def test_a_reply_is_a_map_on_the_wire_and_its_struct_on_both_sides() -> None:
    frame = codec.encode_message(Reply(7, JoinReply(last=12)))
    message = codec.decode_answer(frame[4:])

    assert message == Reply(7, {"last": 12})
    assert read_reply(Join(notebook_id="n"), {"last": 12}) == JoinReply(last=12)


def test_what_a_reply_leaves_out_has_its_default() -> None:
    assert msgspec.to_builtins(GetQueueReply()) == {}
    assert read_reply(GetQueue(notebook_id="n"), {}) == GetQueueReply()


@pytest.mark.parametrize("result", [{}, {"last": None}, {"last": "12"}, {"first": 12}])
def test_what_is_no_reply_to_the_operation_is_an_error_that_names_it(result: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="^not a reply to Join: "):
        read_reply(Join(notebook_id="n"), result)


def test_a_text_that_is_no_unicode_comes_through_a_reply() -> None:
    reply = codec.decode_answer(codec.encode_message(Reply(1, {"executions": [], "last": None, "x": "\ud800"}))[4:])
    assert isinstance(reply, Reply)
    assert read_reply(GetQueue(notebook_id="n"), reply.result) == GetQueueReply()


def test_a_value_in_pieces_is_of_the_type_that_its_operation_names() -> None:
    assert codec.read_pieces(Screenshot(notebook_id="n"), codec.pack(b"png")) == b"png"
    assert get_args(reply_type(Act)) == (ActionResult,)
    with pytest.raises(ProtocolError, match="^not a reply to Screenshot: "):
        codec.read_pieces(Screenshot(notebook_id="n"), codec.pack("png"))
