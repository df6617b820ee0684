"""The conversation on a connection: both sides against each other, and against bytes, without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runtimed.errors import CellNotFound, ConnectionLost, DaemonUnavailable, NoKernel, ProtocolError, RuntimedError
from runtimed.protocol import codec
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.codec import decode_asked_of_daemon
from runtimed.protocol.connection import (
    MAX_CANCELLED,
    Abandoned,
    Acknowledged,
    Asked,
    AskingSide,
    Cancelled,
    Ended,
    EventReceived,
    Failed,
    Greeted,
    Greeting,
    Numbered,
    Replied,
    ServingSide,
    Side,
)
from runtimed.protocol.document_operations import GetCell
from runtimed.protocol.handshake import check_client, check_daemon
from runtimed.protocol.messages import (
    PROTOCOL_VERSION,
    Ack,
    Cancel,
    EventFrame,
    Failure,
    Hello,
    Message,
    Refusal,
    Reply,
    Request,
    Welcome,
)
from runtimed.protocol.session_operations import GetStatus
from runtimed.transport.memory import MemoryPair

HELLO = Hello(PROTOCOL_VERSION, "0.1.0", "client", "Ada", 7)

Pair = MemoryPair[str, ClientOperation, str]


def serving(*, has_stream: bool = False) -> ServingSide[ClientOperation, str]:
    return ServingSide(decode_asked_of_daemon, check_client, "0.2.0", 99, has_stream=has_stream)


def asking() -> AskingSide[str]:
    return AskingSide("the daemon")


def greeted(*, has_stream: bool = False) -> Pair:
    pair = Pair(asking(), serving(has_stream=has_stream))
    pair.asking.hello(HELLO)
    assert pair.serve() == [Greeting(HELLO)]
    pair.serving.welcome()
    assert pair.answer() == [Greeted("0.2.0", 99)]
    return pair


def asked(pair: Pair, waiter: str = "w", request_id: int | None = None) -> Asked[ClientOperation, str]:
    """Ask, and give what the serving side gets."""
    pair.asking.ask(GetStatus(), waiter, request_id)
    (request,) = pair.serve()
    assert isinstance(request, Asked)
    return request


def frames(*messages: Message) -> bytes:
    return b"".join(map(codec.encode_message, messages))


def said(side: Side[Any]) -> bytes:
    return b"".join(side.data_to_send())


def refusal_of(side: Side[Any]) -> str:
    """End a side that found an error as its owner has to, and give what the other side is told."""
    assert side.error is not None
    said(side)
    side.refuse(side.error.message)
    return str(codec.unpack(said(side)[4:])["message"])


def sketch(events: Iterable[Any]) -> list[Any]:
    """Events that can be compared: errors by class and sentence, requests by number and operation."""

    def of(event: Any) -> Any:
        match event:
            case Failed(id=number, waiter=waiter, error=error):
                return ("failed", number, waiter, type(error), error.message, error.data)
            case Ended(error=error):
                return ("ended", type(error), error.message)
            case Asked(id=number, operation=operation):
                return ("asked", number, operation)
            case Cancelled(asked=request) | Abandoned(asked=request):
                return (type(event).__name__, request.id)
        return event

    return [of(event) for event in events]


# --- the conversation -------------------------------------------------------------------------------------------------


def test_a_request_gets_its_events_and_then_its_reply():
    pair = greeted()
    request = asked(pair, "waiter")
    pair.serving.send_event(request, 5, b"first")
    pair.serving.send_event(request, 6, b"second")
    pair.serving.reply(request, {"cells": 2})

    assert request.operation == GetStatus()
    assert pair.answer() == [
        EventReceived(1, "waiter", 5, b"first"),
        EventReceived(1, "waiter", 6, b"second"),
        Replied(1, "waiter", {"cells": 2}),
    ]
    assert list(pair.serving.under_way) == []


def test_requests_are_numbered_and_answered_in_any_order():
    pair = greeted()
    numbers = [pair.asking.ask(GetStatus(), waiter) for waiter in "abc"]
    requests = pair.serve()
    for request in reversed(requests):
        assert isinstance(request, Asked)
        pair.serving.reply(request, {})

    assert numbers == [1, 2, 3]
    assert pair.answer() == [Replied(3, "c", {}), Replied(2, "b", {}), Replied(1, "a", {})]


def test_a_failure_is_the_same_error_with_its_data():
    pair = greeted()
    pair.serving.fail(asked(pair), CellNotFound("no cell c", cell_id="c"))

    assert sketch(pair.answer()) == [("failed", 1, "w", CellNotFound, "no cell c", {"cell_id": "c"})]


def test_numbered_events_answer_no_request_and_are_acknowledged():
    pair = greeted(has_stream=True)
    pair.serving.send_numbered(1, b"one")
    pair.serving.send_numbered(2, b"two")

    assert pair.answer() == [Numbered(1, b"one"), Numbered(2, b"two")]
    pair.asking.acknowledge(2)
    assert pair.serve() == [Acknowledged(2)]


def test_an_event_is_sent_without_being_copied():
    pair = greeted(has_stream=True)
    body = b"x" * 1000
    pair.serving.send_event(asked(pair), 1, body)
    pair.serving.send_numbered(1, body)

    assert [part is body for part in pair.serving.data_to_send()] == [False, True, False, True]


# --- giving up --------------------------------------------------------------------------------------------------------


def test_nothing_comes_of_a_request_that_was_given_up():
    pair = greeted()
    request = asked(pair)
    request.work = "task"
    assert pair.asking.cancel(1) is True

    # All three crossed the cancel.
    pair.serving.send_event(request, 1, b"event")
    assert pair.answer() == []
    (cancelled,) = pair.serve()
    assert isinstance(cancelled, Cancelled)
    assert (cancelled.asked, cancelled.asked.work) == (request, "task")
    pair.serving.send_event(request, 2, b"event")
    pair.serving.reply(request, {})
    assert said(pair.serving) == b""
    assert pair.asking.cancel(1) is False
    assert said(pair.asking) == b""


@pytest.mark.parametrize("late", [Reply(1, {}), Failure(1, "NoKernel", "none", {}), EventFrame(1, 3, b"event")])
def test_an_answer_that_crosses_its_cancel_is_dropped(late):
    pair = greeted()
    asked(pair)
    pair.asking.cancel(1)

    assert list(pair.asking.receive_data(frames(late))) == []
    assert pair.asking.error is None


def test_a_cancel_that_crosses_its_reply_is_dropped():
    pair = greeted()
    pair.serving.reply(asked(pair), {})
    pair.asking.cancel(1)

    assert pair.serve() == []
    assert pair.serving.error is None


def test_a_late_reply_answers_no_second_request_of_the_same_number():
    side = greeted().serving
    request = Request(7, GetStatus())
    first, cancelled, second = side.receive_data(frames(request, Cancel(7), request))
    assert isinstance(first, Asked)
    assert cancelled == Cancelled(first)
    assert isinstance(second, Asked)
    side.send_event(first, 1, b"late")
    side.fail(first, NoKernel("late"))
    side.reply(first, {"late": True})
    side.reply(second, {"late": False})
    side.reply(second, {"twice": True})

    assert said(side) == frames(Reply(7, {"late": False}))


# --- the greeting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [check_client, check_daemon])
@pytest.mark.parametrize("version", [PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1])
def test_another_version_is_refused_with_a_sentence(check, version):
    pair = Pair(asking(), ServingSide(decode_asked_of_daemon, check, "0.2.0", 99))
    pair.asking.hello(Hello(version, "0.0.9", "client", None, 1))
    assert pair.serve() == []
    assert pair.serving.error is not None
    assert str(version) in pair.serving.error.message
    pair.serving.refuse(pair.serving.error.message)
    pair.serving.welcome()

    assert pair.answer() == []
    assert sketch(pair.asking.receive_eof()) == [("ended", ProtocolError, pair.serving.error.message)]


def test_a_refused_greeting_says_which_error_it_is():
    pair = Pair(asking(), serving())
    pair.asking.hello(HELLO)
    pair.asking.ask(GetStatus(), "early")
    pair.serve()
    pair.serving.refuse("too many connections", "DaemonUnavailable")
    pair.serving.welcome()

    assert pair.serve() == []
    assert pair.answer() == []
    assert sketch(pair.asking.receive_eof("reset")) == [
        ("failed", 1, "early", DaemonUnavailable, "too many connections", {}),
        ("ended", DaemonUnavailable, "too many connections"),
    ]


def test_requests_that_follow_a_greeting_wait_until_it_is_accepted():
    pair = Pair(asking(), serving())
    pair.asking.hello(HELLO)
    pair.asking.ask(GetStatus(), "early")

    assert pair.serve() == [Greeting(HELLO)]
    assert pair.serve() == []
    pair.serving.welcome()
    assert sketch(pair.serve()) == [("asked", 1, GetStatus())]


def test_frames_are_small_until_the_greeting_is_accepted():
    large = Hello(PROTOCOL_VERSION, "x" * codec.MAX_GREETING, "client", None, 1)
    side = serving()
    assert list(side.receive_data(frames(large))) == []
    assert "larger than allowed" in refusal_of(side)

    pair = greeted()
    pair.asking.ask(GetCell(notebook_id="n", cell_id="x" * codec.MAX_GREETING), "w")
    assert len(pair.serve()) == 1


GREETED = frames(HELLO)
WELCOMED = frames(Welcome("0.2.0", 99))


@pytest.mark.parametrize("message", [Request(1, GetStatus()), Ack(1), Cancel(1), Reply(1, {}), Welcome("0", 1)])
def test_the_serving_side_takes_nothing_before_the_greeting(message):
    side = serving(has_stream=True)

    assert list(side.receive_data(frames(message))) == []
    assert refusal_of(side).startswith("not a greeting")


@pytest.mark.parametrize("message", [HELLO, Ack(1), Reply(1, {}), Welcome("0", 1), EventFrame(1, 1, b"")])
def test_the_serving_side_refuses_what_has_no_place(message):
    pair = greeted()

    assert list(pair.serving.receive_data(frames(message, Request(1, GetStatus())))) == []
    assert list(pair.serving.receive_data()) == []
    assert refusal_of(pair.serving)
    assert pair.serving.is_over


@pytest.mark.parametrize(
    "message", [Reply(1, {}), Failure(1, "NoKernel", "", {}), EventFrame(0, 1, b""), HELLO, Ack(1)]
)
def test_the_asking_side_refuses_what_comes_before_the_greeting_is_accepted(message):
    side = asking()
    side.hello(HELLO)
    side.ask(GetStatus(), "w")

    assert list(side.receive_data(frames(message))) == []
    assert isinstance(side.error, ProtocolError)


@pytest.mark.parametrize("before", [b"", GREETED])
def test_the_asking_side_is_welcomed_once_and_after_it_greeted(before):
    side = asking()
    if before:
        side.hello(HELLO)
        assert list(side.receive_data(WELCOMED)) == [Greeted("0.2.0", 99)]

    assert list(side.receive_data(WELCOMED)) == []
    assert side.error is not None
    assert side.error.message == "the daemon sent a Welcome where none was expected"


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_number_in_use_names_no_second_request():
    pair = greeted()
    request = asked(pair, request_id=7)

    with pytest.raises(ProtocolError, match="request 7 is in flight"):
        pair.asking.ask(GetStatus(), "again", 7)
    assert said(pair.asking) == b""
    assert list(pair.serving.receive_data(frames(Request(7, GetStatus())))) == []
    assert refusal_of(pair.serving) == "Request 7 is still in flight: give each request a number of its own"
    assert list(pair.serving.under_way) == [request]


def test_a_number_of_a_cancelled_request_names_no_other_one_whose_reply_its_own_would_be():
    pair = greeted()
    asked(pair, request_id=7)
    pair.asking.cancel(7)
    pair.serve()

    with pytest.raises(ProtocolError, match="request 7 was cancelled, but its reply may still arrive"):
        pair.asking.ask(GetStatus(), "again", 7)
    assert pair.serve() == []


def test_the_numbers_of_long_ago_cancelled_requests_take_no_memory():
    pair = greeted()
    for _ in range(MAX_CANCELLED + 1):
        pair.asking.cancel(pair.asking.ask(GetStatus(), "w"))
    pair.serve()

    assert asked(pair, request_id=1).id == 1
    with pytest.raises(ProtocolError, match="request 2 was cancelled"):
        pair.asking.ask(GetStatus(), "w", 2)


def test_a_number_is_free_again_when_its_request_is_settled():
    pair = greeted()
    pair.serving.reply(asked(pair, "first", 7), {})
    pair.answer()
    pair.serving.reply(asked(pair, "second", 7), {})

    assert pair.answer() == [Replied(7, "second", {})]


def test_a_request_that_fits_into_no_frame_is_not_under_way():
    pair = greeted()
    with pytest.raises(ProtocolError, match="larger than a frame"):
        pair.asking.ask(GetCell(notebook_id="n", cell_id="x" * codec.MAX_FRAME), "w")

    assert pair.asking.cancel(1) is False
    assert pair.serve() == []


# --- what cannot be sent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [{"data": b"x" * codec.MAX_FRAME}, {"n": 2**80}, {"value": object()}])
def test_a_reply_that_cannot_be_sent_becomes_a_failure(result):
    pair = greeted()
    pair.serving.reply(asked(pair), result)

    (failed,) = pair.answer()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ProtocolError)


@pytest.mark.parametrize("error", [CellNotFound("x" * codec.MAX_FRAME), CellNotFound("x" * 2000, cell=object())])
def test_an_error_that_cannot_be_sent_is_shortened(error):
    pair = greeted()
    pair.serving.fail(asked(pair), error)

    assert sketch(pair.answer()) == [("failed", 1, "w", CellNotFound, "x" * 1000 + "…", {})]


def test_a_refusal_that_fits_into_no_frame_is_shortened():
    pair = greeted()
    pair.serving.refuse("x" * codec.MAX_FRAME)
    pair.answer()

    assert pair.asking.error is not None
    assert pair.asking.error.message == "x" * 1000 + "…"


# --- the end ----------------------------------------------------------------------------------------------------------


def test_the_end_settles_what_was_under_way_once():
    pair = greeted()
    requests = [asked(pair, waiter) for waiter in "ab"]
    pair.serving.reply(requests[0], {})
    pair.answer()
    asking_events, serving_events = pair.cut("reset by peer")

    lost = "The connection to the daemon broke: reset by peer"
    assert sketch(asking_events) == [("failed", 2, "b", ConnectionLost, lost, {}), ("ended", ConnectionLost, lost)]
    assert sketch(serving_events) == [("Abandoned", 2)]
    assert pair.cut() == ([], [])
    with pytest.raises(ConnectionLost):
        pair.asking.ask(GetStatus(), "late")


def test_a_close_without_a_reason_is_the_other_sides():
    pair = greeted()
    events, _ = pair.cut()

    assert sketch(events) == [("ended", ConnectionLost, "The connection to the daemon broke: the daemon closed it")]


def test_what_is_under_way_fails_with_the_words_of_a_refusal():
    pair = greeted()
    asked(pair)
    pair.serving.refuse("come again", "ConnectionLost")
    assert pair.answer() == []
    assert pair.asking.is_over
    with pytest.raises(ConnectionLost, match="come again"):
        pair.asking.ask(GetStatus(), "late")

    assert sketch(pair.asking.receive_eof("whatever")) == [
        ("failed", 1, "w", ConnectionLost, "come again", {}),
        ("ended", ConnectionLost, "come again"),
    ]


@pytest.mark.parametrize("side", ["asking", "serving"])
def test_a_refusal_is_the_last_that_is_read(side):
    pair = greeted()
    asked(pair)
    one: Side[Any] = getattr(pair, side)

    assert list(one.receive_data(frames(Refusal("enough"), Reply(1, {}) if side == "asking" else Cancel(1)))) == []


def test_the_serving_side_hears_why_it_was_left():
    pair = greeted()
    pair.asking.refuse("your frames are unreadable")

    assert pair.serve() == []
    assert pair.serving.error is not None
    assert pair.serving.error.message == "your frames are unreadable"
    pair.serving.refuse("never said")
    assert said(pair.serving) == b""


def test_nothing_is_said_after_a_refusal():
    pair = greeted(has_stream=True)
    request = asked(pair)
    pair.serving.refuse("enough")
    pair.serving.send_event(request, 1, b"event")
    pair.serving.send_numbered(1, b"event")
    pair.serving.reply(request, {})
    pair.serving.refuse("twice")
    pair.asking.ask(GetStatus(), "late")
    assert pair.serve() == []

    assert said(pair.serving) == frames(Refusal("enough"))


@pytest.mark.parametrize("end", [lambda side: side.refuse("enough"), lambda side: side.receive_eof()])
def test_nothing_more_is_read_when_the_owner_ends_it_between_two_events(end):
    pair = greeted()
    events = pair.serving.receive_data(frames(Request(1, GetStatus()), Request(2, GetStatus())))
    next(events)
    end(pair.serving)

    assert list(events) == []


def test_what_was_not_sent_is_dropped_with_the_connection():
    pair = greeted()
    pair.serving.reply(asked(pair), {})
    pair.serving.receive_eof()

    assert said(pair.serving) == b""


@pytest.mark.parametrize("side", [serving, asking])
def test_an_end_leaves_no_half_frame_in_memory(side):
    one: Side[Any] = side()
    assert list(one.receive_data(b"\x00\x00\xff\x00" + b"x" * 1000)) == []
    assert one.unfinished == (0xFF00, 1004)
    one.receive_eof()

    assert one.unfinished == (0, 0)
    assert list(one.receive_data(b"\x00\x00\xff\x00")) == []
    assert one.unfinished == (0, 0)


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_what_was_not_consumed_comes_with_the_next_bytes():
    pair = greeted()
    data = frames(*(Request(n, GetStatus()) for n in range(1, 6)))
    events = pair.serving.receive_data(data)
    first = [next(events), next(events)]
    events.close()
    pair.serving.receive_data()  # not even begun

    rest = list(pair.serving.receive_data(frames(Request(6, GetStatus()))))
    assert [number for _, number, _ in sketch([*first, *rest])] == [1, 2, 3, 4, 5, 6]


def test_what_came_before_something_unreadable_counts_and_can_be_answered():
    pair = greeted()
    (request,) = pair.serving.receive_data(frames(Request(1, GetStatus())) + b"\x00\x00\x00\x01\xc1")
    assert isinstance(request, Asked)
    pair.serving.reply(request, {})
    assert pair.serving.error is not None
    pair.serving.refuse(pair.serving.error.message)

    pair.asking.ask(GetStatus(), "w")
    assert pair.answer() == [Replied(1, "w", {})]
    assert list(pair.serving.receive_data(frames(Request(2, GetStatus())))) == []
    assert isinstance(pair.asking.error, ProtocolError)


@pytest.mark.parametrize("size", [*range(1, 40), 1000])
def test_both_sides_read_streams_chopped_at_every_size(size):
    def converse(pair: Pair, step: Callable[[], None]) -> None:
        pair.asking.hello(HELLO)
        step()
        for waiter in "abcd":
            pair.asking.ask(GetCell(notebook_id="n", cell_id=waiter), waiter)
        pair.asking.cancel(2)
        pair.asking.acknowledge(17)
        step()

    def run(size: int | None) -> tuple[list[Any], list[Any]]:
        pair = Pair(asking(), serving(has_stream=True))
        at_serving: list[Any] = []
        at_asking: list[Any] = []

        def step() -> None:
            quiet = False
            while not quiet:
                served = pair.serve(size)
                for event in served:
                    match event:
                        case Greeting():
                            pair.serving.welcome()
                        case Asked(id=3):
                            pair.serving.fail(event, NoKernel("none", notebook_id="n"))
                        case Asked(id=number) if number != 2:
                            pair.serving.send_numbered(number, b"numbered")
                            pair.serving.send_event(event, number, b"x" * 50)
                            pair.serving.reply(event, {"number": number})
                answered = pair.answer(size)
                at_serving.extend(served)
                at_asking.extend(answered)
                quiet = not served and not answered and not pair.on_its_way

        converse(pair, step)
        return sketch(at_serving), sketch(at_asking)

    expected = run(None)
    assert len(expected[0]) == 7
    assert len(expected[1]) == 8
    assert run(size) == expected


# --- both against each other ------------------------------------------------------------------------------------------


class Conversation(RuleBasedStateMachine):
    """Anything is said at any time, and arrives in pieces of any size: each request is settled exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: MemoryPair[int, ClientOperation, int] = MemoryPair(
            AskingSide("it"), ServingSide(decode_asked_of_daemon, check_client, "0", 1)
        )
        self.asked = 0
        self.open: dict[int, int] = {}  # number to waiter
        self.cancelled: set[int] = set()
        self.settled: dict[int, str] = {}  # waiter to how it ended
        self.promised: dict[int, dict[str, Any] | str] = {}  # waiter to what the serving side has said of it
        self.serving: list[Asked[ClientOperation, int]] = []
        self.given_up: list[Asked[ClientOperation, int]] = []
        self.was_greeted = False
        self.ends = 0

    # What the owners do.

    @rule(version=st.sampled_from([PROTOCOL_VERSION] * 9 + [PROTOCOL_VERSION + 1]))
    def greet(self, version):
        if not self.was_greeted:
            self.was_greeted = True
            self.pair.asking.hello(Hello(version, "0", "client", None, 1))

    @rule(number=st.one_of(st.none(), st.integers(1001, 1005)))
    def ask(self, number):
        if not self.was_greeted:
            return
        waiter = self.asked = self.asked + 1
        try:
            # The operation tells the serving side whose it is.
            given = self.pair.asking.ask(GetCell(notebook_id="n", cell_id=str(waiter)), waiter, number)
        except RuntimedError:
            assert self.pair.asking.is_over or number is None or number in self.open or number in self.cancelled
        else:
            assert given not in self.open
            assert given not in self.cancelled
            self.open[given] = waiter

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data):
        number = data.draw(st.sampled_from(sorted(self.open)))
        assert self.pair.asking.cancel(number)
        self.cancelled.add(number)
        self.settle(number, self.open[number], "cancelled")

    @precondition(lambda self: self.serving or self.given_up)
    @rule(data=st.data(), how=st.sampled_from(["reply", "fail", "event", "event"]))
    def answer(self, data, how):
        request = data.draw(st.sampled_from([*self.serving, *self.given_up]))
        waiter = waiter_of(request)
        late = request in self.given_up
        before = bool(self.pair.serving.under_way)
        match how:
            case "reply":
                self.pair.serving.reply(request, {"waiter": waiter})
            case "fail":
                self.pair.serving.fail(request, NoKernel(str(waiter)))
            case _:
                self.pair.serving.send_event(request, waiter, b"event")
        if late or how == "event":
            assert bool(self.pair.serving.under_way) == before
        else:
            self.promised[waiter] = how
            self.serving.remove(request)
            self.given_up.append(request)

    # What arrives.

    @rule(size=st.one_of(st.none(), st.integers(1, 30)))
    def serve(self, size):
        self.take(self.pair.serve(size))
        self.refuse_after_an_error(self.pair.serving)

    @rule(size=st.one_of(st.none(), st.integers(1, 30)))
    def hear(self, size):
        self.hear_all(self.pair.answer(size))
        self.refuse_after_an_error(self.pair.asking)

    @precondition(lambda self: self.asked > 3)
    @rule()
    def refuse(self):
        self.pair.serving.refuse("enough", "ConnectionLost")

    @precondition(lambda self: self.asked > 3)
    @rule()
    def cut(self):
        heard, taken = self.pair.cut()
        self.hear_all(heard)
        self.take(taken)
        assert not self.open
        assert not self.serving

    def take(self, events):
        for event in events:
            match event:
                case Greeting():
                    self.pair.serving.welcome()
                case Asked():
                    assert waiter_of(event) not in map(waiter_of, [*self.serving, *self.given_up])
                    self.serving.append(event)
                case Cancelled(asked=request) | Abandoned(asked=request):
                    self.serving.remove(request)
                    self.given_up.append(request)

    def hear_all(self, events):
        for event in events:
            assert self.ends == 0
            match event:
                case Replied(id=number, waiter=waiter, result=result):
                    assert (self.promised[waiter], result) == ("reply", {"waiter": waiter})
                    self.settle(number, waiter, "replied")
                case Failed(id=number, waiter=waiter, error=NoKernel() as error):
                    assert (self.promised[waiter], error.message) == ("fail", str(waiter))
                    self.settle(number, waiter, "failed")
                case Failed(id=number, waiter=waiter):
                    self.settle(number, waiter, "lost")
                case EventReceived(id=number, waiter=waiter, seq=seq):
                    assert self.open[number] == waiter == seq
                case Ended():
                    self.ends += 1
                    assert not self.open

    def settle(self, number, waiter, how):
        assert self.open.pop(number) == waiter
        assert waiter not in self.settled
        self.settled[waiter] = how

    def refuse_after_an_error(self, side):
        if side.error is not None:
            side.refuse(side.error.message)

    @invariant()
    def nobody_is_forgotten(self):
        assert set(self.pair.serving.under_way) == set(self.serving)

    def teardown(self):
        self.cut()
        assert self.ends == 1


def waiter_of(request: Asked[ClientOperation, int]) -> int:
    assert isinstance(request.operation, GetCell)
    return int(request.operation.cell_id)


Conversation.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestBothSidesAgainstEachOther = Conversation.TestCase
