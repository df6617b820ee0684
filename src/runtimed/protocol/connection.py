"""The conversation on one connection, as its two sides: bytes in, typed events out, and bytes to be sent.

The asking side greets and sends requests; the serving side checks the greeting and answers. Both own the rules: which
message may come when, which requests are in flight, and that each of them is settled once. Nothing here waits or opens
a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, ValuesView
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from runtimed.errors import ConnectionLost, ProtocolError, RuntimedError, error_from_wire, wire_name
from runtimed.protocol.codec import (
    MAX_FRAME,
    MAX_GREETING,
    FrameReader,
    decode_answer,
    decode_greeting,
    encode_event_frame,
    encode_message,
)
from runtimed.protocol.messages import (
    Ack,
    Answer,
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
from runtimed.protocol.operation import Operation, ReplyBody

__all__ = [
    "MAX_CANCELLED",
    "Abandoned",
    "Acknowledged",
    "Asked",
    "AskingEvent",
    "AskingSide",
    "Cancelled",
    "Ended",
    "EventReceived",
    "Failed",
    "Greeted",
    "Greeting",
    "HelloCheck",
    "Numbered",
    "Replied",
    "ServingEvent",
    "ServingSide",
    "Side",
]

MAX_SENTENCE: Final = 1000
"""Characters that are left of a sentence that does not fit into a frame."""

MAX_CANCELLED: Final = 1000
"""Number of the latest cancelled requests whose numbers are not used again: their replies may be in flight."""

T = TypeVar("T")
E = TypeVar("E")
OperationT = TypeVar("OperationT", bound=Operation[Any])


# --- what the asking side gets ----------------------------------------------------------------------------------------


class Greeted(msgspec.Struct, frozen=True):
    """The serving side has accepted the greeting.

    Attributes:
        version: Its version of runtimed.
        pid: Its process id, by its own account.
    """

    version: str
    pid: int


class Replied(msgspec.Struct, Generic[T], frozen=True):
    """A request succeeded.

    Attributes:
        id: The request's number.
        waiter: The waiter given to `AskingSide.ask`.
        result: The reply's map.
    """

    id: int
    waiter: T
    result: dict[str, Any]


class Failed(msgspec.Struct, Generic[T], frozen=True):
    """A request failed, or the connection ended before its reply; the other attributes are those of `Replied`."""

    id: int
    waiter: T
    error: RuntimedError


class EventReceived(msgspec.Struct, Generic[T], frozen=True):
    """A part of the answer to a request.

    Attributes:
        id: The request's number.
        waiter: The waiter given to `AskingSide.ask`.
        seq: The event's number.
        event: Its encoded bytes; `codec.decode_event` decodes them.
    """

    id: int
    waiter: T
    seq: int
    event: bytes


class Numbered(msgspec.Struct, frozen=True):
    """An event of a host's stream, which answers no request; the attributes are those of `EventReceived`."""

    seq: int
    event: bytes


class Ended(msgspec.Struct, frozen=True):
    """The connection has ended. Always the last event, and only once."""

    error: RuntimedError


AskingEvent = Greeted | Replied[T] | Failed[T] | EventReceived[T] | Numbered | Ended


# --- what the serving side gets ---------------------------------------------------------------------------------------


class Greeting(msgspec.Struct, frozen=True):
    """The asking side has greeted, in a supported version: `welcome` it, or `refuse` it."""

    hello: Hello


@dataclass(slots=True, eq=False)
class Asked(Generic[OperationT, T]):
    """A request to be answered; pass it to `reply`, `fail` and `send_event`.

    Attributes:
        id: The request's number.
        operation: The operation.
        work: The owner's work on it; the owner keeps it here.
    """

    id: int
    operation: OperationT
    work: T | None = None


class Cancelled(msgspec.Struct, Generic[OperationT, T], frozen=True):
    """The request is cancelled; whatever is sent for it is dropped."""

    asked: Asked[OperationT, T]


class Abandoned(msgspec.Struct, Generic[OperationT, T], frozen=True):
    """The connection ended before this request was answered."""

    asked: Asked[OperationT, T]


class Acknowledged(msgspec.Struct, frozen=True):
    """All numbered events up to and including this one are stored."""

    seq: int


ServingEvent = Greeting | Asked[OperationT, T] | Cancelled[OperationT, T] | Abandoned[OperationT, T] | Acknowledged

HelloCheck = Callable[[Hello, str], str | None]
"""Given a greeting and this side's version, returns why it is refused; None if it is accepted (see `handshake`)."""


# --- both sides -------------------------------------------------------------------------------------------------------


class Side(Generic[E]):
    """The common part of both sides: frames, the refusal, and the end.

    Attributes:
        error: Why the connection cannot go on: the peer's violation, or its own refusal. Handle the events that came
            before, then call `refuse` with it, and close.
        is_greeted: Whether the greeting was accepted.
        is_over: Whether nothing more can be sent.
    """

    def __init__(self, max_frame: int) -> None:
        self._reader = FrameReader(max_frame)
        self._unsent: list[bytes] = []
        self.error: RuntimedError | None = None
        self.is_greeted = False
        self.is_over = False
        self._reads = True

    def receive_data(self, data: bytes = b"") -> Generator[E]:
        """Take bytes, and yield the events that they complete.

        Messages are decoded one by one, as the events are taken; after an `error` there are none. Consume or close the
        iterator before the next call, which begins with what was not consumed.
        """
        if self.error is not None or self.is_over:
            data = b""
        return self._events(self._reader.receive_data(data))

    def _events(self, bodies: Generator[bytes]) -> Generator[E]:
        try:
            for body in bodies if self._reads else ():
                event = self._take(body)
                if event is not None:
                    yield event
                if not self._reads:
                    return
        except ProtocolError as exc:
            # Not the error itself: its traceback refers to the frame.
            self.error = ProtocolError(exc.message)
            self._reads = False
        finally:
            bodies.close()

    def receive_eof(self, reason: str = "") -> list[E]:
        """Note that the connection has ended, by whichever side; return the resulting events. Idempotent.

        Args:
            reason: Why, if it broke.
        """
        self.is_over = True
        self._reads = False
        self._reader = FrameReader()  # its buffer may be large, and its owner may live on for a while
        self._unsent.clear()
        return self._settle_all(reason)

    def data_to_send(self) -> list[bytes]:
        """Return the bytes to be sent now, in this order."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def refuse(self, reason: str, error: str = "ProtocolError") -> None:
        """Send the reason for the end of the connection as the last message; close once it is sent. Idempotent.

        Args:
            reason: A sentence.
            error: Name of the error's class.
        """
        self._say(Refusal(_shortened(reason), error))
        self.is_over = True
        self._reads = False

    @property
    def unfinished(self) -> tuple[int, int]:
        """Size of the incomplete frame, and how much of it has arrived, in bytes; both 0 if there is none."""
        return self._reader.announced, self._reader.pending

    def _take(self, body: bytes) -> E | None:
        raise NotImplementedError

    def _settle_all(self, reason: str) -> list[E]:
        raise NotImplementedError

    def _hear_refusal(self, refusal: Refusal) -> None:
        self.error = error_from_wire(refusal.error, refusal.message, {})
        self.is_over = True
        self._reads = False

    def _say(self, message: Message) -> None:
        if not self.is_over:
            self._unsent.append(encode_message(message))


class AskingSide(Side[AskingEvent[T]]):
    """The side that connects: a client of the daemon, or the daemon of a host."""

    def __init__(self, other: str) -> None:
        """Begin a conversation.

        Args:
            other: Name of the serving side in errors: "the daemon".
        """
        super().__init__(MAX_FRAME)
        self._other = other
        self._waiters: dict[int, T] = {}
        self._cancelled: dict[int, None] = {}  # the oldest first
        self._last_id = 0
        self._has_greeted = False
        self._has_ended = False

    def hello(self, hello: Hello) -> None:
        """Send the greeting; `Greeted` follows, or `Ended`."""
        self._has_greeted = True
        self._say(hello)

    def ask(self, operation: Operation[Any], waiter: T, request_id: int | None = None) -> int:
        """Send a request.

        Args:
            operation: The operation.
            waiter: Returned with everything that answers it.
            request_id: Its number, for a request that was numbered elsewhere; None for the next one.

        Returns:
            Its number, until it is settled.

        Raises:
            ProtocolError: If it does not fit into a frame, or a request of this number is in flight or was cancelled:
                its reply would be taken for the new one's.
            RuntimedError: If the connection has ended.
        """
        if self.is_over:
            raise self._lost("it is closed")
        if request_id is None:
            request_id = self._last_id = self._last_id + 1
        if request_id in self._waiters:
            raise ProtocolError(f"request {request_id} is under way")
        if request_id in self._cancelled:
            raise ProtocolError(f"request {request_id} was cancelled: its reply may be on its way")
        self._say(Request(request_id, operation))
        self._waiters[request_id] = waiter
        return request_id

    def cancel(self, request_id: int) -> bool:
        """Cancel a request: nothing more comes of it. Return whether it was in flight."""
        if request_id not in self._waiters:
            return False
        del self._waiters[request_id]
        self._cancelled[request_id] = None
        if len(self._cancelled) > MAX_CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]
        self._say(Cancel(request_id))
        return True

    def acknowledge(self, seq: int) -> None:
        """Acknowledge all numbered events up to and including this one: they are stored."""
        self._say(Ack(seq))

    def _take(self, body: bytes) -> AskingEvent[T] | None:
        message: Answer = decode_answer(body)
        match message:
            case EventFrame() if self.is_greeted:
                if message.id == 0:
                    return Numbered(message.seq, message.event)
                if message.id not in self._waiters:
                    return None  # cancelled meanwhile, as replies without a waiter
                return EventReceived(message.id, self._waiters[message.id], message.seq, message.event)
            case Reply() if self.is_greeted:
                if message.id not in self._waiters:
                    return None
                return Replied(message.id, self._waiters.pop(message.id), message.result)
            case Failure() if self.is_greeted:
                if message.id not in self._waiters:
                    return None
                error = error_from_wire(message.error, message.message, message.data)
                return Failed(message.id, self._waiters.pop(message.id), error)
            case Welcome() if self._has_greeted and not self.is_greeted:
                self.is_greeted = True
                return Greeted(message.version, message.pid)
            case Refusal():
                self._hear_refusal(message)
                return None
            case _:
                raise ProtocolError(f"{self._other} sent a {type(message).__name__} where none was expected")

    def _settle_all(self, reason: str) -> list[AskingEvent[T]]:
        if self._has_ended:
            return []
        self._has_ended = True
        lost = self._lost(reason or f"{self._other} closed it")
        waiters, self._waiters = self._waiters, {}
        return [*(Failed(request_id, waiter, lost) for request_id, waiter in waiters.items()), Ended(lost)]

    def _lost(self, reason: str) -> RuntimedError:
        return self.error or ConnectionLost(f"The connection to {self._other} broke: {reason}")


class ServingSide(Side[ServingEvent[OperationT, T]], Generic[OperationT, T]):
    """The side that listens: the daemon for its clients, a host for the daemon."""

    def __init__(
        self,
        decode: Callable[[bytes], Hello | Request[OperationT] | Cancel | Ack | Refusal],
        check: HelloCheck,
        version: str,
        pid: int,
        *,
        has_stream: bool = False,
    ) -> None:
        """Wait for a greeting.

        Args:
            decode: Decodes the messages that this side accepts; see `codec`.
            check: Decides which greetings are refused.
            version: This side's version of runtimed.
            pid: This side's process id.
            has_stream: Whether it sends numbered events that answer no request, and accepts their acknowledgements.
        """
        super().__init__(MAX_GREETING)
        self._decode = decode
        self._check = check
        self._version = version
        self._pid = pid
        self._has_stream = has_stream
        self._under_way: dict[int, Asked[OperationT, T]] = {}

    @property
    def under_way(self) -> ValuesView[Asked[OperationT, T]]:
        """The requests that are neither answered nor cancelled."""
        return self._under_way.values()

    def welcome(self) -> None:
        """Accept the greeting: from now on the peer may send requests, in frames of any size."""
        self._say(Welcome(self._version, self._pid))
        self.is_greeted = True
        self._reads = not self.is_over
        self._reader.max_frame = MAX_FRAME

    def reply(self, asked: Asked[OperationT, T], result: ReplyBody | dict[str, Any]) -> None:
        """Answer a request; a reply that cannot be sent becomes a failure that says so."""
        if self.is_under_way(asked):
            try:
                self._say(Reply(asked.id, result))
            except ProtocolError as exc:  # too large, or an integer of more than 64 bits
                self.fail(asked, exc)
            else:
                del self._under_way[asked.id]

    def fail(self, asked: Asked[OperationT, T], error: RuntimedError) -> None:
        """Answer a request with an error; a sentence that fits into no frame is cut."""
        if self.is_under_way(asked):
            del self._under_way[asked.id]
            name, sentence = wire_name(error), error.message
            try:
                self._say(Failure(asked.id, name, sentence, error.data))
            except ProtocolError:
                # It repeats the request, and an id of 10 MB does not fit twice; or its data are no plain values.
                self._say(Failure(asked.id, name, _shortened(sentence), {}))

    def send_event(self, asked: Asked[OperationT, T], seq: int, event: bytes) -> None:
        """Send a part of the answer to a request: the event's encoded bytes, which are not copied."""
        if not self.is_over and self.is_under_way(asked):
            self._unsent += encode_event_frame(asked.id, seq, event)

    def send_numbered(self, seq: int, event: bytes) -> None:
        """Send an event of the stream that answers no request."""
        if not self.is_over:
            self._unsent += encode_event_frame(0, seq, event)

    def is_under_way(self, asked: Asked[OperationT, T]) -> bool:
        """Whether a request is neither answered nor cancelled."""
        return self._under_way.get(asked.id) is asked

    def _take(self, body: bytes) -> ServingEvent[OperationT, T] | None:
        if not self.is_greeted:
            return self._greet(decode_greeting(body))
        message = self._decode(body)
        match message:
            case Request(id=request_id):
                if request_id in self._under_way:
                    # The peer could not tell whose the answers are, and only one of them could be cancelled.
                    raise ProtocolError(
                        f"Request {request_id} is not answered yet: give each request a number of its own"
                    )
                asked = self._under_way[request_id] = Asked(request_id, message.operation)
                return asked
            case Cancel(id=request_id):
                # It may have crossed the reply.
                given_up = self._under_way.pop(request_id, None)
                return None if given_up is None else Cancelled(given_up)
            case Ack() if self._has_stream:
                return Acknowledged(message.seq)
            case Refusal():
                self._hear_refusal(message)
                return None
            case _:
                raise ProtocolError(f"a {type(message).__name__} was not expected here")

    def _greet(self, hello: Hello) -> Greeting:
        refusal = self._check(hello, self._version)
        if refusal is not None:
            raise ProtocolError(refusal)
        self._reads = False  # messages behind a greeting are decoded by other rules
        return Greeting(hello)

    def _settle_all(self, _reason: str) -> list[ServingEvent[OperationT, T]]:
        left, self._under_way = self._under_way, {}
        return [Abandoned(asked) for asked in left.values()]


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[:MAX_SENTENCE]}…"
