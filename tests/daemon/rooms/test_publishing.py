"""What was committed is told to its writer as done, and to everybody who watches, whoever of them fails."""

import asyncio
import contextlib

import pytest

from runtimed import AsyncSession, StorageError
from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.events import MISTAKE, EventLog, Stream
from runtimed.ids import SessionId
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.codec import (
    FrameReader,
    decode_answer,
    decode_asked_of_daemon,
    decode_event,
    encode_event,
    encode_message,
)
from runtimed.protocol.comms import CommBody
from runtimed.protocol.connection import Asked, ServingSide
from runtimed.protocol.events import CellChanged, Comm, CommsMissed, Event
from runtimed.protocol.handshake import check_client
from runtimed.protocol.messages import PROTOCOL_VERSION, EventFrame, Failure, Hello, Request
from runtimed.protocol.session_operations import GetStatus
from runtimed.storage.session_store import SessionStore
from tests.daemon.conftest import daemon_with_a_clock, until


def change(store: SessionStore, query: str) -> None:
    """Change what is stored, and let the store forget what it knows of it, as when a transaction is rolled back."""
    store.database.execute(query)
    with contextlib.suppress(ZeroDivisionError), store.database.transaction():
        raise ZeroDivisionError


def test_a_watcher_that_cannot_be_served_fails_alone(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon), AsyncSession("s") as writer, AsyncSession("s") as other:
            await writer.start_kernel()
            go_on = own_folder / "go on"
            code = f"import os, time\nwhile not os.path.exists({str(go_on)!r}):\n    time.sleep(0.01)"
            execution_id = await other.queue_cell(await other.create_cell(code))
            room = daemon.room("s")
            await until(
                lambda: room.contents.find_executions(execution_id)[0].status == "running", "the cell does not begin"
            )
            waiting = asyncio.create_task(other.wait(execution_id))
            await until(lambda: room.log.watchers == 1, "nobody watches")
            async with contextlib.aclosing(other.subscribe()) as events:
                heard = asyncio.create_task(anext(events))
                await until(lambda: room.log.watchers == 2, "nobody subscribes")
                change(room.store, "UPDATE executions SET checksum = checksum + 1")
                cell_id = await writer.create_cell("told to its writer")
                assert (await asyncio.wait_for(heard, 20)).cell_id == cell_id
            with pytest.raises(StorageError, match="is damaged"):
                await asyncio.wait_for(waiting, 20)
            change(room.store, "UPDATE executions SET checksum = checksum - 1")
            go_on.touch()
            assert (await writer.wait(execution_id, timeout_secs=20)).success

    asyncio.run(scenario())


class Peer:
    """A channel that takes everything, with a request on it."""

    writable = is_open = True

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.side: ServingSide[ClientOperation, None] = ServingSide(decode_asked_of_daemon, check_client, "0", 1)
        hello = Hello(PROTOCOL_VERSION, "0", "c", None, 1)
        request = Request(1, GetStatus())
        list(self.side.receive_data(encode_message(hello)))
        self.side.welcome()
        (asked,) = self.side.receive_data(encode_message(request))
        assert isinstance(asked, Asked)
        self.asked = asked
        self.side.data_to_send()

    def flush(self) -> None:
        bodies = FrameReader().receive_data(b"".join(self.side.data_to_send()))
        self.sent += map(decode_answer, bodies)


class Outcome:
    """What a stream asks at the end: nothing yet, then an error."""

    error: Exception | None = None

    def __call__(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (StorageError("a row is damaged", row=3), Failure(1, "StorageError", "a row is damaged", {"row": 3})),
        (KeyError("unforeseen"), Failure(1, "RuntimedError", MISTAKE, {})),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_whatever_a_watcher_fails_with_the_others_get_all_and_the_writer_hears_nothing(tmp_path, error, failure, place):
    async def scenario() -> None:
        with SessionStore(tmp_path / "s.db") as store:
            log = EventLog(SessionId("s"), store, Flow(Demand(), "s"), None)
            peers = [Peer() for _ in range(3)]
            ended: list[int] = []
            for number, peer in enumerate(peers):
                outcome = Outcome()
                stream = Stream(peer, peer.asked, log, outcome=outcome)  # type: ignore[arg-type]  # all of a channel that it uses
                stream.begin(on_end=lambda number=number: ended.append(number))  # type: ignore[misc]  # mypy cannot infer it
                outcome.error = error if number == place else None
            with log.transaction():
                log.append(CellChanged(at=1.0, cell_id="c", change="added", author="a"))
            assert store.last_seq == 1
            others = [peer.sent for number, peer in enumerate(peers) if number != place]
            # Those who come late have a turn of their own.
            await until(lambda: [len(sent) for sent in others] == [1, 1], "a watcher misses the event")
            await until(lambda: peers[place].sent[1:] == [failure], "the watcher is not told why it fails")
            assert ended == [place]
            with log.transaction():
                log.append(CellChanged(at=2.0, cell_id="c", change="deleted", author="a"))
            await until(lambda: [len(peer.sent) for peer in peers] == [2, 2, 2], "a watcher misses the event")

    asyncio.run(scenario())


def comm(number: int, size: int = 0) -> Comm:
    return Comm(at=float(number), message=CommBody(msg_type="comm_msg", content="x" * size))


def test_comms_keep_their_places_while_a_stream_that_keeps_up_waits_for_its_turn(tmp_path):
    async def scenario() -> None:
        with SessionStore(tmp_path / "s.db") as store:
            log, peer = EventLog(SessionId("s"), store, Flow(Demand(), "s"), None), Peer()
            stream = Stream(peer, peer.asked, log, comms=True)  # type: ignore[arg-type]  # all of a channel that it uses
            stream.begin(on_end=lambda: None)
            expected: list[Event] = []

            def happens(event: Event) -> None:
                expected.append(event)
                if isinstance(event, Comm):
                    log.tell(encode_event(event))
                else:
                    with log.transaction():
                        log.append(event)

            stream.fall_behind()
            for number in range(0, 9, 3):
                happens(comm(number))
                happens(CellChanged(at=number + 1.0, cell_id="c", change="source", author="a"))
                happens(comm(number + 2))
            await until(lambda: len(peer.sent) == 9, "something is missing")
            assert [decode_event(frame.event) for frame in peer.sent if isinstance(frame, EventFrame)] == expected
            happens(comm(9))
            assert len(peer.sent) == 10

            stream.fall_behind()
            for number in range(5):
                log.tell(encode_event(comm(number, 2**19)))
            await until(lambda: len(peer.sent) == 12, "nothing is said of what was too much")
            last = peer.sent[-1]
            assert isinstance(last, EventFrame)
            missed = decode_event(last.event)
            assert isinstance(missed, CommsMissed)
            assert missed.count == 4

    asyncio.run(scenario())


OPEN_COMM = "from comm import create_comm\nopened = create_comm(target_name='x')"


def test_a_kernel_s_host_tells_of_comms_only_while_somebody_follows_them(own_folder, monkeypatch):
    told, tell = [], EventLog.tell

    def count(log, body):
        told.append(body)
        tell(log, body)

    monkeypatch.setattr(EventLog, "tell", count)

    async def scenario():
        async with daemon_with_a_clock(), AsyncSession("quiet") as session:
            await session.create_cell("")
            events = await session.subscribe(event_types=["comm"])
            taking = asyncio.create_task(anext(events))
            await asyncio.sleep(0.2)
            await session.run(OPEN_COMM)
            assert (await taking).event_type == "comm"
            assert len(told) == 1, "the kernel has started after the subscription"
            await events.aclose()
            await asyncio.sleep(0.2)
            await session.run(OPEN_COMM)
            assert len(told) == 1
            await session.stop()

    asyncio.run(scenario())
