import contextlib
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.errors import StorageError
from runtimed.storage.blobs import BlobStore

DATA = bytes(range(256)) * 20
NAME = hashlib.sha256(DATA).hexdigest()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_value_is_stored_once_under_its_hash_and_privately(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    assert store.put(DATA) == NAME
    (path,) = files(tmp_path)
    before = path.stat()
    assert store.put(DATA) == NAME
    assert path == tmp_path / "blobs" / NAME[:2] / NAME[2:4] / NAME
    assert path.stat().st_ino == before.st_ino
    assert stat.S_IMODE(before.st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "blobs").stat().st_mode) == 0o700


def test_a_value_is_read_in_parts(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    store.put(DATA)
    assert store.size(NAME) == len(DATA)
    assert store.read(NAME, 0, len(DATA)) == DATA
    assert store.read(NAME, 250, 10) == DATA[250:260]
    assert store.read(NAME, len(DATA) - 3, 10) == DATA[-3:]
    assert store.read(NAME, len(DATA) + 3, 10) == b""
    assert store.read(store.put(b""), 0, 10) == b""
    for offset, size in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match="cannot read"):
            store.read(NAME, offset, size)


def test_an_unknown_blob_is_a_storage_error(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    for call in (lambda: store.size(NAME), lambda: store.verify(NAME), lambda: store.read(NAME, 0, 1)):
        with pytest.raises(StorageError, match=f"blob {NAME} is not stored here") as info:
            call()
        assert info.value.sha256 == NAME


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", NAME.upper(), NAME[:-1], NAME + "0", NAME + "\n", "/" + NAME[1:], "." * 64]
)
def test_a_name_that_is_no_hash_is_refused(tmp_path: Path, name: str) -> None:
    store = BlobStore(tmp_path)
    for call in (lambda: store.size(name), lambda: store.verify(name), lambda: store.read(name, 0, 1)):
        with pytest.raises(StorageError, match="is not the name of a blob"):
            call()


@pytest.mark.parametrize("damage", [DATA[:-1], DATA[:100] + b"\xff" + DATA[101:], b""])
def test_damage_is_told_and_mended_by_putting_the_value_again(tmp_path: Path, damage: bytes) -> None:
    store = BlobStore(tmp_path)
    store.put(DATA)
    assert store.verify(NAME)
    files(tmp_path)[0].write_bytes(damage)
    assert not store.verify(NAME)
    store.put(DATA)
    assert store.verify(NAME)


def test_a_value_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    code = f"""
import pathlib, resource, signal
from runtimed.errors import StorageError
from runtimed.storage.blobs import BlobStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = BlobStore(pathlib.Path({str(tmp_path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    store.put(bytes(5000))
except StorageError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("a value of 5000 bytes cannot be stored in ")
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used"):
        BlobStore(tmp_path / "file" / "blobs")


@contextlib.contextmanager
def put_under_way(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder as `put` does, in whatever process."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def test_what_a_dead_writer_left_is_swept_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    BlobStore(tmp_path)
    half = tmp_path / "tmp" / "1-half"
    half.touch()
    with put_under_way(tmp_path):
        BlobStore(tmp_path)
        assert files(tmp_path) == [half]
    BlobStore(tmp_path)
    assert files(tmp_path) == []


def test_two_processes_put_the_same_values_at_once(tmp_path: Path) -> None:
    code = f"""
import pathlib
from runtimed.storage.blobs import BlobStore
store = BlobStore(pathlib.Path({str(tmp_path)!r}))
for i in range(200):
    name = store.put(b"%d" % i * 1000)
    assert store.verify(name)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert len(files(tmp_path)) == 200


def put_at(store: BlobStore, data: bytes, moment: float) -> str:
    name = store.put(data)
    os.utime(store.folder / name[:2] / name[2:4] / name, (moment, moment))
    return name


def test_old_blobs_are_listed_and_removed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    old = [put_at(store, b"%d" % n, 1000.0 + n) for n in range(20)]
    new = store.put(b"new")
    (tmp_path / "aa").mkdir(exist_ok=True)
    (tmp_path / "zz").touch()
    assert set(store.older_than(1010)) == set(old[:10])
    assert [store.remove_unused(name, 1010) for name in [*old[8:12], new, NAME]] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert set(store.older_than(2000)) == {*old[:8], *old[10:]}
    with pytest.raises(StorageError, match="is not stored here"):
        store.size(old[8])
    with pytest.raises(StorageError, match="is not the name of a blob"):
        store.remove_unused("../../x", 1010)


def test_a_value_that_is_put_again_is_as_good_as_new(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    name = put_at(store, DATA, 1000)
    assert list(store.older_than(2000)) == [name]
    assert store.put(DATA) == name
    assert list(store.older_than(2000)) == []
    assert not store.remove_unused(name, 2000)
    assert store.verify(name)


def test_nothing_is_removed_while_somebody_puts(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    name = put_at(store, DATA, 1000)
    with put_under_way(tmp_path):
        assert not store.remove_unused(name, 2000)
    assert store.remove_unused(name, 2000)


def test_what_is_put_while_another_process_removes_is_there_when_put_returns(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, time
from runtimed.storage.blobs import BlobStore
store = BlobStore(pathlib.Path({str(tmp_path)!r}))
until = time.monotonic() + 3
while time.monotonic() < until:
    for name in list(store.older_than(2000)):
        store.remove_unused(name, 2000)
"""
    store = BlobStore(tmp_path)
    values = [b"%d" % n * 1000 for n in range(20)]
    with subprocess.Popen([sys.executable, "-c", code]) as remover:
        while remover.poll() is None:
            for value in values:
                name = store.put(value)
                assert store.verify(name)
                os.utime(store.folder / name[:2] / name[2:4] / name, (1000, 1000))
    assert remover.returncode == 0


def test_a_value_whose_time_is_renewed_is_as_good_as_new(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    assert not store.renew(store.put(DATA)[::-1])
    (path,) = files(tmp_path)
    os.utime(path, (1, 1))
    assert store.renew(NAME)
    assert (list(store.older_than(2.0)), store.read(NAME, 0, 5)) == ([], DATA[:5])
