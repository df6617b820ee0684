"""A session's log is emptied in a thread, while the event loop serves everybody else."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.events import EventLog
from runtimed.errors import StorageError
from runtimed.ids import SessionId
from runtimed.protocol.events import Stream
from runtimed.storage.database import LONG_WAL
from runtimed.storage.session_store import SessionStore


class SlowDisk(SessionStore):
    """A store whose checkpoints wait until they are let go, as those on a busy disk do."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.threads: list[threading.Thread] = []
        self.disk = threading.Event()
        self.fails = False

    def begin_checkpoint(self) -> Callable[[], None]:
        work = super().begin_checkpoint()

        def wait_for_the_disk() -> None:
            self.threads.append(threading.current_thread())
            self.disk.wait(20)
            work()
            if self.fails:
                raise StorageError("no room")

        return wait_for_the_disk


def fill(log: EventLog, store: SessionStore) -> int:
    count = 0
    while not store.wal_is_long:
        with log.transaction():
            log.append(Stream(at=0.0, name="stdout", text="x" * 2**18))
        count += 1
    return count


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # a thread makes no event here
            await asyncio.sleep(0.001)


def test_a_long_log_is_emptied_in_a_thread_while_this_session_s_bulk_waits(tmp_path):
    async def main() -> None:
        with closing(SlowDisk(tmp_path / "s.db")) as store:
            flow = Flow(Demand(), "s")
            log = EventLog(SessionId("s"), store, flow, None)
            count = fill(log, store)
            await until(lambda: store.threads)
            assert store.threads[0] is not threading.current_thread()
            assert flow.is_held
            went_on: list[int] = []
            flow.later(lambda: went_on.append(log.last))
            for _ in range(50):
                await asyncio.sleep(0)  # the loop turns
            assert went_on == []
            store.disk.set()
            await until(lambda: went_on)
            assert went_on == [count]
            assert not store.wal_is_long
            # The next one begins when it is time again.
            fill(log, store)
            await until(lambda: len(store.threads) == 2)
            await until(lambda: not flow.is_held)

    asyncio.run(main())


def test_a_checkpoint_that_fails_holds_nobody_up_and_is_not_tried_at_once(tmp_path, caplog):
    async def main() -> None:
        with closing(SlowDisk(tmp_path / "s.db")) as store:
            store.fails = True
            store.disk.set()
            flow = Flow(Demand(), "s")
            log = EventLog(SessionId("s"), store, flow, None)
            fill(log, store)
            await until(lambda: store.threads)
            await until(lambda: not flow.is_held)
            for _ in range(2 * LONG_WAL // 2**18):
                with log.transaction():
                    log.append(Stream(at=0.0, name="stdout", text="x" * 2**18))
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(store.threads) == 1

    asyncio.run(main())
    assert [record.message for record in caplog.records] == [
        "session 's': the WAL grows until a checkpoint succeeds: no room"
    ]


def test_a_store_that_is_closed_in_time_has_no_checkpoint(tmp_path):
    async def main() -> None:
        store = SlowDisk(tmp_path / "s.db")
        log = EventLog(SessionId("s"), store, Flow(Demand(), "s"), None)
        fill(log, store)
        store.close()
        for _ in range(50):
            await asyncio.sleep(0)
        assert store.threads == []

    asyncio.run(main())
