import errno
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtimed.errors import StorageError
from runtimed.storage import spool as spool_module
from runtimed.storage.spool import Spool
from runtimed.storage.spool_files import HEAD_SIZE, segments_of

Events = list[tuple[int, bytes]]


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_SIZE", 300)
    monkeypatch.setattr(spool_module, "_EMPTY_ABOVE", 100)
    monkeypatch.setattr(spool_module, "_MARK_EVERY", 64)


def events(first: int, last: int, size: int = 20) -> Events:
    return [(n, b"%d" % n * (size // len(str(n)))) for n in range(first, last + 1)]


def write(folder: Path, batch: Events) -> None:
    with Spool(folder) as spool:
        for record in batch:
            spool.append(*record)


def read_all(spool: Spool, after: int, max_bytes: int) -> Events:
    found: Events = []
    while page := spool.read_after(found[-1][0] if found else after, max_bytes):
        assert len(page) == 1 or sum(len(body) for _, body in page) <= max_bytes
        found += page
    return found


def test_events_are_visible_to_another_reader_at_once(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        assert (spool.last, spool.acknowledged, spool.size) == (0, 0, 0)
        spool.append(1, b"one")
        assert list(Spool.read_dead(tmp_path / "spool", 0)) == [(1, b"one")]
        spool.append_many([(2, b""), (5, b"five")])
        spool.append_many([])
        assert list(Spool.read_dead(tmp_path / "spool", 0)) == [(1, b"one"), (2, b""), (5, b"five")]
        assert list(Spool.read_dead(tmp_path / "spool", 2)) == [(5, b"five")]
        assert spool.read_after(1) == [(2, b""), (5, b"five")]
        assert spool.read_after(5) == []
        assert (spool.last, spool.size) == (5, 3 * HEAD_SIZE + 7)


def test_files_and_folder_are_private(tmp_path: Path) -> None:
    write(tmp_path / "spool", events(1, 1))
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "spool").iterdir()} == {0o600}


def test_a_large_batch_and_large_bodies_come_back(tmp_path: Path) -> None:
    batch = [*events(1, 3000, 10), (4000, os.urandom(3 * 2**20)), (4001, os.urandom(9 * 2**20)), (4002, b"last")]
    with Spool(tmp_path) as spool:
        spool.append_many(batch)
        assert read_all(spool, 0, 2**20) == batch
        assert read_all(spool, 2500, 2**20) == batch[2500:]
    assert list(Spool.read_dead(tmp_path, 0)) == batch


def test_numbers_must_grow(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append(3, b"three")
        for batch in ([(3, b"x")], [(4, b"x"), (4, b"y")], [(1, b"x")]):
            with pytest.raises(ValueError, match="cannot follow"):
                spool.append_many(batch)
        assert spool.read_after(0) == [(3, b"three")]


@pytest.mark.usefixtures("small_segments")
def test_reading_crosses_segments_in_pages_of_any_size(tmp_path: Path) -> None:
    batch = events(1, 60)
    with Spool(tmp_path) as spool:
        for record in batch:
            spool.append(*record)
        assert len(segments_of(tmp_path)) > 5
        for max_bytes in (1, 20, 41, 1000, 2**20):
            assert read_all(spool, 0, max_bytes) == batch
        for after in range(62):
            assert spool.read_after(after) == batch[after:]
            assert list(Spool.read_dead(tmp_path, after)) == batch[after:]


@pytest.mark.usefixtures("small_segments")
def test_acknowledged_segments_are_deleted_and_the_rest_stays(tmp_path: Path) -> None:
    batch = events(1, 60)
    with Spool(tmp_path) as spool:
        spool.append_many(batch[:30])
        for record in batch[30:]:
            spool.append(*record)
        count = len(segments_of(tmp_path))
        for n in range(30):
            spool.acknowledge(n)
        assert len(segments_of(tmp_path)) == count
        spool.acknowledge(30)
        assert len(segments_of(tmp_path)) == count - 1
        assert spool.read_after(30) == batch[30:]
        spool.acknowledge(59)
        assert len(segments_of(tmp_path)) == 1
        assert list(Spool.read_dead(tmp_path, 59)) == batch[59:]
        spool.acknowledge(10)
        assert spool.acknowledged == 59


@pytest.mark.usefixtures("small_segments")
def test_a_spool_that_is_acknowledged_wholly_takes_no_room_and_goes_on(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append_many(events(1, 10))
        spool.acknowledge(99)
        assert (spool.size, spool.acknowledged, spool.last) == (0, 10, 10)
        assert [path.stat().st_size for _, path in segments_of(tmp_path)] == [0]
        spool.append_many(events(11, 12))
        assert spool.read_after(0) == events(11, 12)
        assert list(Spool.read_dead(tmp_path, 10)) == events(11, 12)


def test_acknowledging_touches_no_file_while_the_spool_is_short(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append_many(events(1, 10))
        with mock.patch.object(spool_module, "os", None):
            for n in range(1, 11):
                spool.acknowledge(n)
        assert spool.acknowledged == 10


def test_a_torn_tail_is_ignored_wherever_it_was_torn(tmp_path: Path) -> None:
    batch = events(1, 3)
    write(tmp_path / "whole", batch)
    ((_, path),) = segments_of(tmp_path / "whole")
    content = path.read_bytes()
    record = HEAD_SIZE + 20
    assert len(content) == 3 * record
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        assert list(Spool.read_dead(tmp_path / "whole", 0)) == batch[: size // record]


@pytest.mark.usefixtures("small_segments")
def test_a_tail_torn_in_an_earlier_segment_is_damage(tmp_path: Path) -> None:
    batch = events(1, 20)
    write(tmp_path, batch)
    (_, first), (second, _), *_ = segments_of(tmp_path)
    first.write_bytes(first.read_bytes()[:-1])
    found: Events = []
    with pytest.raises(StorageError, match="is damaged at byte"):
        found.extend(Spool.read_dead(tmp_path, 0))
    assert list(Spool.read_dead(tmp_path, second - 1)) == batch[second - 1 :]


def test_any_flipped_bit_is_noticed_after_what_is_before_it(tmp_path: Path) -> None:
    batch = events(1, 3)
    write(tmp_path, batch)
    ((_, path),) = segments_of(tmp_path)
    content = path.read_bytes()
    record = HEAD_SIZE + 20
    for at in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            found: Events = []
            with pytest.raises(StorageError, match="damaged") as info:
                take_all(found, tmp_path)
            whole = at // record
            assert found == batch[:whole]
            assert info.value.n == (None if at % record < HEAD_SIZE else whole + 1)


def take_all(found: Events, folder: Path) -> None:
    for record in Spool.read_dead(folder, 0):
        found.append(record)


def test_a_damaged_event_ends_a_page_and_can_be_passed_over(tmp_path: Path) -> None:
    batch = events(1, 5)
    with Spool(tmp_path) as spool:
        spool.append_many(batch)
        ((_, path),) = segments_of(tmp_path)
        content = bytearray(path.read_bytes())
        content[3 * (HEAD_SIZE + 20) - 1] ^= 1
        path.write_bytes(content)
        assert spool.read_after(0) == batch[:2]
        with pytest.raises(StorageError, match="in event 3") as info:
            spool.read_after(2)
        assert spool.read_after(info.value.n) == batch[3:]
    assert list(Spool.read_dead(tmp_path, 3)) == batch[3:]


def test_a_folder_without_a_spool_is_empty_and_dead(tmp_path: Path) -> None:
    assert list(Spool.read_dead(tmp_path / "none", 0)) == []
    assert not Spool.is_alive(tmp_path / "none")


def test_the_lock_tells_whether_the_host_lives(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert Spool.is_alive(tmp_path)
        with pytest.raises(StorageError, match="in use by a living host"):
            Spool(tmp_path)
        assert Spool.is_alive(tmp_path)
        spool.close()
        assert not Spool.is_alive(tmp_path)


def test_the_events_of_another_host_are_never_continued(tmp_path: Path) -> None:
    write(tmp_path, events(1, 2))
    with pytest.raises(StorageError, match="holds the events of another host"):
        Spool(tmp_path)
    assert not Spool.is_alive(tmp_path)
    assert list(Spool.read_dead(tmp_path, 0)) == events(1, 2)


def test_a_child_of_the_host_does_not_hold_its_lock(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", "print(input(), flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        # Its answer says that it is past `exec`: the system wakes the parent before it closes the files.
        child.stdin.write(b"ready\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"ready\n"
        spool.close()
        assert not Spool.is_alive(tmp_path)
        child.communicate(b"\n")


def test_asking_whether_a_host_lives_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    code = f"""
import pathlib
from runtimed.storage.spool import Spool
folder = pathlib.Path({str(tmp_path)!r})
(folder / "lock").touch()
print(flush=True)
while True:
    Spool.is_alive(folder)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        try:
            for _ in range(300):
                Spool(tmp_path).close()
        finally:
            asking.kill()


def test_closing_twice_is_harmless_and_writing_afterwards_an_error(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(1, b"one")
    spool.close()
    spool.close()
    with pytest.raises(StorageError, match="is closed"):
        spool.append(2, b"two")


def test_a_full_disk_leaves_whole_records_and_writing_goes_on_later(tmp_path: Path) -> None:
    code = f"""
import pathlib, resource, signal
from runtimed.errors import StorageError
from runtimed.storage.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with Spool(pathlib.Path({str(tmp_path)!r})) as spool:
    spool.append(1, b"one")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    for batch in ([(2, bytes(5000))], [(2, b"small"), (3, bytes(5000))], [(2, bytes(3 * 2**20))]):
        try:
            spool.append_many(batch)
        except StorageError as exc:
            print(exc, exc.errno)
    assert spool.read_after(0) == [(1, b"one")]
    spool.append(2, b"two")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    spool.append(3, bytes(5000))
    assert spool.read_after(1) == [(2, b"two"), (3, bytes(5000))]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("cannot be written" in line and line.endswith(f" {errno.EFBIG}") for line in lines)
    assert list(Spool.read_dead(tmp_path, 0)) == [(1, b"one"), (2, b"two"), (3, bytes(5000))]


def test_what_an_interrupted_write_left_is_cut_off_by_the_next(tmp_path: Path) -> None:
    def half_written(file: int, parts: Sequence[bytes], size: int) -> None:
        os.write(file, b"".join(parts)[: size // 2])
        raise KeyboardInterrupt

    with Spool(tmp_path) as spool:
        spool.append(1, b"one")
        with mock.patch.object(spool_module, "write_all", half_written), pytest.raises(KeyboardInterrupt):
            spool.append(2, b"two")
        assert list(Spool.read_dead(tmp_path, 0)) == [(1, b"one")]
        spool.append(2, b"zwei")
        assert list(Spool.read_dead(tmp_path, 0)) == spool.read_after(0) == [(1, b"one"), (2, b"zwei")]


def test_what_could_not_be_cut_off_is_cut_off_by_the_next_write(tmp_path: Path) -> None:
    def half_written(file: int, parts: Sequence[bytes], size: int) -> None:
        os.write(file, b"".join(parts)[: size // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def no_truncate(file: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Spool(tmp_path) as spool:
        spool.append(1, b"one")
        with (
            mock.patch.object(spool_module, "write_all", half_written),
            mock.patch.object(os, "ftruncate", no_truncate),
            pytest.raises(StorageError, match="No space left"),
        ):
            spool.append(2, b"two")
        with mock.patch.object(os, "ftruncate", no_truncate), pytest.raises(StorageError, match="Input/output"):
            spool.append(2, b"two")
        spool.append(2, b"zwei")
        assert list(Spool.read_dead(tmp_path, 0)) == spool.read_after(0) == [(1, b"one"), (2, b"zwei")]


class SpoolMachine(RuleBasedStateMachine):
    """A spool against a list: appended, acknowledged and read in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.patch = mock.patch.multiple(spool_module, SEGMENT_SIZE=200, _EMPTY_ABOVE=80, _MARK_EVERY=50)
        self.patch.start()
        self.spool = Spool(self.path)
        self.events: Events = []
        self.acknowledged = 0

    def teardown(self) -> None:
        self.spool.close()
        self.patch.stop()
        self.folder.cleanup()

    @rule(batch=st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=60)), max_size=8))
    def append(self, batch: list[tuple[int, bytes]]) -> None:
        numbered = []
        n = self.spool.last
        for step, body in batch:
            n += step
            numbered.append((n, body))
        self.spool.append_many(numbered)
        self.events += numbered

    @rule(back=st.integers(-2, 20))
    def acknowledge(self, back: int) -> None:
        n = max(self.spool.last - back, 0)
        self.spool.acknowledge(n)
        self.acknowledged = max(self.acknowledged, min(n, self.spool.last))

    @rule(ahead=st.integers(0, 30), max_bytes=st.integers(1, 200))
    def read(self, ahead: int, max_bytes: int) -> None:
        after = self.acknowledged + ahead
        assert read_all(self.spool, after, max_bytes) == [e for e in self.events if e[0] > after]
        assert list(Spool.read_dead(self.path, after)) == [e for e in self.events if e[0] > after]

    @rule(max_bytes=st.integers(1, 200))
    def read_what_may_be_gone(self, max_bytes: int) -> None:
        found = read_all(self.spool, 0, max_bytes)
        assert found == self.events[len(self.events) - len(found) :]
        assert list(Spool.read_dead(self.path, 0)) == found

    @invariant()
    def figures_agree(self) -> None:
        assert self.spool.acknowledged == self.acknowledged
        assert self.spool.last == (self.events[-1][0] if self.events else 0)
        assert self.spool.size == sum(path.stat().st_size for _, path in segments_of(self.path))


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=60, stateful_step_count=30)
