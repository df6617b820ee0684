"""Events of a host that are not stored: sent at most once, and what is not sent is counted."""

from __future__ import annotations

import asyncio

from runtimed.host.outbox import Outbox
from runtimed.protocol.codec import decode_event
from runtimed.protocol.comms import CommBody
from runtimed.protocol.events import BrowserUsed, Comm, CommsMissed, Event
from runtimed.storage.spool import Spool


class Sink:
    """A connection that takes events or not."""

    def __init__(self) -> None:
        self.takes_events = True
        self.sent: list[tuple[int, Event]] = []

    def send_event(self, seq: int, event: bytes) -> None:
        self.sent.append((seq, decode_event(event)))


def comm(number: int) -> Comm:
    return Comm(at=float(number), message=CommBody(msg_type="comm_msg", content=f'{{"data": {number}}}'))


async def tell_some(spool: Spool, sink: Sink) -> None:
    outbox = Outbox(spool, lambda: None)
    outbox.tell_comm(comm(1))  # nobody is there
    outbox.attach(sink, 0)
    outbox.tell_comm(comm(2))
    sink.takes_events = False
    outbox.tell_comm(comm(3))
    outbox.tell_comm(comm(4))
    assert not outbox.tell(BrowserUsed(at=4.5))
    outbox.pump()
    sink.takes_events = True
    outbox.pump()
    outbox.pump()
    sink.takes_events = False
    outbox.tell_comm(comm(5))
    sink.takes_events = True
    outbox.tell_comm(comm(6))
    spool.close()


def test_messages_of_comms_that_a_slow_daemon_misses_are_counted(tmp_path):
    asyncio.run(tell_some(Spool(tmp_path), sink := Sink()))

    assert sink.sent == [
        (0, CommsMissed(at=1.0, count=1)),
        (0, comm(2)),
        (0, CommsMissed(at=4.0, count=2)),
        (0, CommsMissed(at=5.0, count=1)),
        (0, comm(6)),
    ]
