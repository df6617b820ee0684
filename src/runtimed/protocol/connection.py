"""The protocol on one connection, sans I/O: bytes in, typed events out, and bytes to send.

The asking side greets and sends requests; the serving side checks the greeting and answers. They enforce the rules:
which message may come when, which requests are in flight, and that each request is settled exactly once. Nothing here
waits or opens a socket.
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
"""Characters to which an error message is cut that does not fit into a frame."""

MAX_CANCELLED: Final = 1000
"""Number of the latest cancelled requests whose numbers are not reused, since their replies may be in flight."""

T = TypeVar("T")
E = TypeVar("E")
OperationT = TypeVar("OperationT", bound=Operation[Any])


# --- what the asking side gets ----------------------------------------------------------------------------------------


class Greeted(msgspec.Struct, frozen=True):
    """The serving side accepted the greeting.

    Attributes:
        version: Its version of runtimed.
        pid: Its process id, as it reports itself.
    """

    version: str
    pid: int


class Replied(msgspec.Struct, Generic[T], frozen=True):
    """A request succeeded.

    Attributes:
        id: The request's number.
        waiter: The waiter given to `AskingSide.ask`.
        result: The reply as a map; see `read_reply`.
    """

    id: int
    waiter: T
    result: dict[str, Any]


class Failed(msgspec.Struct, Generic[T], frozen=True):
    """A request failed, or the connection ended before its reply. `id` and `waiter` are as in `Replied`."""

    id: int
    waiter: T
    error: RuntimedError


class EventReceived(msgspec.Struct, Generic[T], frozen=True):
    """An event in answer to a request.

    Attributes:
        id: The request's number.
        waiter: The waiter given to `AskingSide.ask`.
        seq: The event's number.
        event: The encoded event; see `codec.decode_event`.
    """

    id: int
    waiter: T
    seq: int
    event: bytes


class Numbered(msgspec.Struct, frozen=True):
    """An event of a host's stream, which answers no request. The attributes are as in `EventReceived`."""

    seq: int
    event: bytes


class Ended(msgspec.Struct, frozen=True):
    """The connection ended. Always the last event, exactly once."""

    error: RuntimedError


AskingEvent = Greeted | Replied[T] | Failed[T] | EventReceived[T] | Numbered | Ended


# --- what the serving side gets ---------------------------------------------------------------------------------------


class Greeting(msgspec.Struct, frozen=True):
    """The asking side greeted with a supported version; answer with `welcome` or `refuse`."""

    hello: Hello


@dataclass(slots=True, eq=False)
class Asked(Generic[OperationT, T]):
    """A request to answer; pass it to `reply`, `fail` and `send_event`.

    Attributes:
        id: The request's number.
        operation: The operation.
        work: Reserved for the caller.
    """

    id: int
    operation: OperationT
    work: T | None = None


class Cancelled(msgspec.Struct, Generic[OperationT, T], frozen=True):
    """A request was cancelled; what is sent for it from now on is dropped."""

    asked: Asked[OperationT, T]


class Abandoned(msgspec.Struct, Generic[OperationT, T], frozen=True):
    """The connection ended before a request was answered."""

    asked: Asked[OperationT, T]


class Acknowledged(msgspec.Struct, frozen=True):
    """All numbered events up to and including this one are stored."""

    seq: int


ServingEvent = Greeting | Asked[OperationT, T] | Cancelled[OperationT, T] | Abandoned[OperationT, T] | Acknowledged

HelloCheck = Callable[[Hello, str], str | None]
"""Takes a greeting and this side's version; returns the reason to refuse it, None to accept it (see `handshake`)."""


# --- both sides -------------------------------------------------------------------------------------------------------


class Side(Generic[E]):
    """The common part of both sides: frames, the refusal, and the end.

    Attributes:
        error: The error that ends the connection: a protocol violation of the peer, or the peer's refusal. Handle the
            earlier events, then call `refuse` with it and close.
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
        """Take bytes from the peer, and yield the events that they complete.

        Messages are decoded lazily, one per event; after an `error` there are none. Consume or close the iterator
        before the next call; messages that were not consumed come first then.
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
            # A new error, since the traceback of this one keeps the frame in memory.
            self.error = ProtocolError(exc.message)
            self._reads = False
        finally:
            bodies.close()

    def receive_eof(self, reason: str = "") -> list[E]:
        """End the conversation after the connection ended, and return the resulting events. Idempotent.

        Args:
            reason: Why it broke; empty if a side closed it.
        """
        self.is_over = True
        self._reads = False
        self._reader = FrameReader()  # frees the buffer, which may be large
        self._unsent.clear()
        return self._settle_all(reason)

    def data_to_send(self) -> list[bytes]:
        """Return the bytes to send now, in order."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def refuse(self, reason: str, error: str = "ProtocolError") -> None:
        """Send a refusal as the last message; close once it is sent. Idempotent.

        Args:
            reason: Why the connection ends, a sentence.
            error: Name of a class of `runtimed.errors`.
        """
        self._say(Refusal(_shortened(reason), error))
        self.is_over = True
        self._reads = False

    @property
    def unfinished(self) -> tuple[int, int]:
        """Size of the incomplete frame and the part received, in bytes; both 0 if there is none."""
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
    """The side that connects and sends requests: a client to the daemon, or the daemon to a host."""

    def __init__(self, other: str) -> None:
        """Start before the greeting.

        Args:
            other: Name of the serving side in error messages, such as "the daemon".
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
            waiter: Returned in every event that answers the request.
            request_id: Number of a request that the caller numbers; None for the next free number.

        Returns:
            The request's number.

        Raises:
            ProtocolError: If it does not fit into a frame, or a request of this number is in flight or was cancelled,
                so that replies could be confused.
            RuntimedError: If the connection has ended.
        """
        if self.is_over:
            raise self._lost("it is closed")
        if request_id is None:
            request_id = self._last_id = self._last_id + 1
        if request_id in self._waiters:
            raise ProtocolError(f"request {request_id} is in flight")
        if request_id in self._cancelled:
            raise ProtocolError(f"request {request_id} was cancelled, but its reply may still arrive")
        self._say(Request(request_id, operation))
        self._waiters[request_id] = waiter
        return request_id

    def cancel(self, request_id: int) -> bool:
        """Cancel a request, which gets no more events and no reply; return whether it was in flight."""
        if request_id not in self._waiters:
            return False
        del self._waiters[request_id]
        self._cancelled[request_id] = None
        if len(self._cancelled) > MAX_CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]
        self._say(Cancel(request_id))
        return True

    def acknowledge(self, seq: int) -> None:
        """Acknowledge that all numbered events up to and including this one are stored."""
        self._say(Ack(seq))

    def _take(self, body: bytes) -> AskingEvent[T] | None:
        message: Answer = decode_answer(body)
        match message:
            case EventFrame() if self.is_greeted:
                if message.id == 0:
                    return Numbered(message.seq, message.event)
                if message.id not in self._waiters:
                    return None  # the request was cancelled, as for replies without a waiter
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
    """The side that listens and answers requests: the daemon to its clients, or a host to the daemon."""

    def __init__(
        self,
        decode: Callable[[bytes], Hello | Request[OperationT] | Cancel | Ack | Refusal],
        check: HelloCheck,
        version: str,
        pid: int,
        *,
        has_stream: bool = False,
    ) -> None:
        """Start before the greeting.

        Args:
            decode: Decodes the messages that this side accepts; see `codec`.
            check: Decides which greetings are refused.
            version: This side's version of runtimed.
            pid: This side's process id.
            has_stream: Whether it sends a stream of numbered events and accepts acknowledgements.
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
        """The requests in flight: neither answered nor cancelled."""
        return self._under_way.values()

    def welcome(self) -> None:
        """Accept the greeting: from now on the peer may send requests, in frames of up to MAX_FRAME bytes."""
        self._say(Welcome(self._version, self._pid))
        self.is_greeted = True
        self._reads = not self.is_over
        self._reader.max_frame = MAX_FRAME

    def reply(self, asked: Asked[OperationT, T], result: ReplyBody | dict[str, Any]) -> None:
        """Answer a request; a reply that cannot be encoded becomes a failure."""
        if self.is_under_way(asked):
            try:
                self._say(Reply(asked.id, result))
            except ProtocolError as exc:  # too large, or an integer of more than 64 bits
                self.fail(asked, exc)
            else:
                del self._under_way[asked.id]

    def fail(self, asked: Asked[OperationT, T], error: RuntimedError) -> None:
        """Answer a request with an error; a message that does not fit into a frame is cut."""
        if self.is_under_way(asked):
            del self._under_way[asked.id]
            name, sentence = wire_name(error), error.message
            try:
                self._say(Failure(asked.id, name, sentence, error.data))
            except ProtocolError:
                # The error quotes the request twice, perhaps an id of 10 MB; or its data are not plain values.
                self._say(Failure(asked.id, name, _shortened(sentence), {}))

    def send_event(self, asked: Asked[OperationT, T], seq: int, event: bytes) -> None:
        """Send an encoded event in answer to a request; the bytes are not copied."""
        if not self.is_over and self.is_under_way(asked):
            self._unsent += encode_event_frame(asked.id, seq, event)

    def send_numbered(self, seq: int, event: bytes) -> None:
        """Send an encoded event of the stream."""
        if not self.is_over:
            self._unsent += encode_event_frame(0, seq, event)

    def is_under_way(self, asked: Asked[OperationT, T]) -> bool:
        """Whether a request is in flight: neither answered nor cancelled."""
        return self._under_way.get(asked.id) is asked

    def _take(self, body: bytes) -> ServingEvent[OperationT, T] | None:
        if not self.is_greeted:
            return self._greet(decode_greeting(body))
        message = self._decode(body)
        match message:
            case Request(id=request_id):
                if request_id in self._under_way:
                    # The peer could not tell the answers apart, nor cancel each of the two.
                    raise ProtocolError(
                        f"Request {request_id} is still in flight: give each request a number of its own"
                    )
                asked = self._under_way[request_id] = Asked(request_id, message.operation)
                return asked
            case Cancel(id=request_id):
                # The cancellation may have crossed the reply.
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
        self._reads = False  # until `welcome`: messages after the greeting have another decoder
        return Greeting(hello)

    def _settle_all(self, _reason: str) -> list[ServingEvent[OperationT, T]]:
        left, self._under_way = self._under_way, {}
        return [Abandoned(asked) for asked in left.values()]


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[:MAX_SENTENCE]}…"
