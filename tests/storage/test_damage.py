"""What the disk does not give, or memory does not hold, is no damage: the real SQLite's own reads fail here."""

import _sqlite3
import ctypes
import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtimed.errors import StorageError
from runtimed.storage.damage import finds_damage
from tests.storage.test_database import filled, left_with_a_log, log_of, open_database

PAGE = 4096


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`, see sqlite3.h; its last members replace single system calls, for tests."""


_SetSystemCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Vfs), ctypes.c_char_p, ctypes.c_void_p)
_Read = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, use_errno=True
)
_Vfs._fields_ = [
    *((name, ctypes.c_int) for name in ("version", "file_size", "longest_path")),
    *((f"member{number}", ctypes.c_void_p) for number in range(16)),
    ("set_system_call", _SetSystemCall),
]


class Disk:
    """A disk that gives nothing from an offset of a file on, to SQLite and to `os.pread`."""

    def __init__(self) -> None:
        self.bad: int | None = None
        self.times = 0
        self.read = os.pread

    def pread(self, file: int, size: int, offset: int) -> bytes:
        if self.bad is not None and offset + size > self.bad and self.times:
            self.times -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.read(file, size, offset)

    def fail(self, offset: int, times: int = sys.maxsize) -> None:
        self.bad, self.times = offset, times

    def recover(self) -> None:
        self.bad = None


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    try:
        library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        find = library.sqlite3_vfs_find
    except (OSError, AttributeError):
        pytest.skip("this interpreter hides its SQLite")
    find.restype = ctypes.POINTER(_Vfs)
    vfs = find(None)
    disk = Disk()

    def pread(file: int, buffer: int, size: int, offset: int) -> int:
        try:
            data = disk.pread(file, size, offset)
        except OSError as exc:
            ctypes.set_errno(exc.errno or 0)
            return -1
        ctypes.memmove(buffer, data, len(data))
        return len(data)

    call = _Read(pread)
    monkeypatch.setattr("os.pread", disk.pread)
    for name in (b"pread", b"pread64"):
        vfs.contents.set_system_call(vfs, name, ctypes.cast(call, ctypes.c_void_p))
    yield disk
    for name in (b"pread", b"pread64"):
        vfs.contents.set_system_call(vfs, name, None)


def rows(path: Path) -> list[int]:
    with open_database(path) as database:
        return [number for (number,) in database.rows("SELECT a FROM t ORDER BY a")]


@pytest.mark.parametrize("times", [1, 2, sys.maxsize])
@pytest.mark.parametrize("offset", [0, PAGE, 2 * PAGE, 4 * PAGE])
def test_a_database_that_the_disk_does_not_give_is_refused_and_stays(
    tmp_path: Path, disk: Disk, offset: int, times: int
) -> None:
    path = tmp_path / "a.db"
    content = filled(path)
    disk.fail(offset, times)
    with pytest.raises(StorageError, match="disk") as info:
        open_database(path)
    assert info.value.set_aside is None
    disk.recover()
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == ["a.db"]
    assert path.read_bytes() == content
    assert rows(path) == list(range(50))


@pytest.mark.parametrize("offset", [0, 40, 32 + 4120 * 8])
def test_a_log_that_the_disk_does_not_give_is_refused_and_stays(tmp_path: Path, disk: Disk, offset: int) -> None:
    path = tmp_path / "a.db"
    content = left_with_a_log(path)
    disk.fail(offset)
    with pytest.raises(StorageError, match="disk") as info:
        open_database(path)
    assert info.value.set_aside is None
    disk.recover()
    assert log_of(path).read_bytes() == content
    assert rows(path) == list(range(20))


@pytest.mark.parametrize("times", [1, sys.maxsize])
def test_a_disk_that_fails_while_a_database_is_used_sets_nothing_aside_at_the_end(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr("runtimed.storage.database.CHECK_LIMIT", 0)
    path = tmp_path / "a.db"
    filled(path)
    database = open_database(path)
    disk.fail(4 * PAGE, times)
    with pytest.raises(StorageError, match="set aside only if a second check finds it damaged"):
        database.rows("SELECT * FROM t")
    assert database.close() is None
    disk.recover()
    assert rows(path) == list(range(50))


def test_a_file_that_took_the_place_of_a_damaged_one_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimed.storage.database.CHECK_LIMIT", 0)
    path = tmp_path / "a.db"
    path.write_bytes(filled(path)[: 2 * PAGE] + b"\xff" * 20 * PAGE)
    database = open_database(path)
    with pytest.raises(StorageError, match="it is damaged"):
        database.rows("SELECT * FROM t")
    path.rename(tmp_path / "moved.db")
    path.write_bytes(b"another")
    assert database.close() is None
    assert path.read_bytes() == b"another"


LITTLE = """
import contextlib, os, resource, sqlite3, sys
from pathlib import Path
from runtimed.errors import StorageError
from tests.storage.test_database import open_database

def attempt():
    try:
        open_database(path).close()
    except StorageError as exc:
        assert exc.set_aside is None, exc
        return str(exc)

path, before = Path(sys.argv[1]), sys.argv[2]
said = set()
if before == "memory":
    memory = sqlite3.connect(":memory:")
    # It can only become lower, until there is not even enough to make it so.
    with contextlib.suppress(MemoryError):
        for limit in range(400_000, 0, -2_000):
            memory.execute(f"PRAGMA hard_heap_limit={limit}").fetchall()
            said.add(attempt())
else:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    while True:
        try:
            taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            break
    while taken:
        said.add(attempt())
        os.close(taken.pop())
    said.add(attempt())
print(*said, sep="\\n")
"""


@pytest.mark.parametrize(("what", "sentence"), [("memory", "out of memory"), ("files", "cannot be opened")])
def test_too_little_memory_and_too_many_files_set_nothing_aside(tmp_path: Path, what: str, sentence: str) -> None:
    path = tmp_path / "a.db"
    content = filled(path)
    done = subprocess.run([sys.executable, "-c", LITTLE, path, what], capture_output=True, text=True, check=False)
    assert sentence in done.stdout, done.stderr
    assert "None" in done.stdout.splitlines()
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == ["a.db"]
    assert path.read_bytes() == content


class Says(sqlite3.Connection):
    """A database of which `quick_check` says what it is told to."""

    answer: Callable[[], list[tuple[str]]]

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        return self.answer() if sql == "PRAGMA quick_check" else super().execute(sql)  # type: ignore[return-value]  # rows


@pytest.mark.parametrize(
    ("text", "is_damage"),
    [
        ("ok", False),
        ("*** in database main ***\nPage 7: never used", True),
        ("*** in database main ***\nTree 2 page 4: unable to get the page. error code=10", False),
        ("*** in database main ***\nOn tree page 2 cell 3: unable to get the page. error code=8458", False),
        ("*** in database main ***\nTree 2 page 4: unable to get the page. error code=7", False),
        ("*** in database main ***\nFreelist: failed to get page 9", False),
        ("*** in database main ***\nFreelist: failed to get page 9\nPage 7: never used", True),
        ("*** in database main ***\nTree 2 page 4: unable to get the page. error code=11", True),
        ("*** in database main ***\nTree 2 page 4: btreeInitPage() returns error code 11", True),
    ],
)
def test_a_page_that_sqlite_did_not_get_is_not_what_it_finds_damaged(text: str, is_damage: bool) -> None:
    connection = sqlite3.connect(":memory:", factory=Says)
    connection.answer = lambda: [(text,)]
    assert finds_damage(connection) is is_damage
    connection.close()
