"""Blobs that come in pieces: whole under their name, or not there at all."""

import hashlib
import os
from pathlib import Path

import pytest

from runtimed.errors import InvalidArgument, StorageError
from runtimed.storage.blobs import BlobStore
from runtimed.storage.uploads import MAX_UPLOADS, BlobUploads

VALUE = b"0123456789"
NAME = hashlib.sha256(VALUE).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


@pytest.fixture
def uploads(store: BlobStore) -> BlobUploads:
    return BlobUploads(store)


def path_of(store: BlobStore) -> Path:
    return store.folder / NAME[:2] / NAME[2:4] / NAME


def files(store: BlobStore) -> list[bytes]:
    return [path.read_bytes() for path in store.folder.rglob("*") if path.is_file()]


def test_pieces_become_a_blob_with_the_last_one(store: BlobStore, uploads: BlobUploads):
    assert uploads.put(NAME, 10, 0, VALUE[:4]) == 4
    with pytest.raises(StorageError, match="is not stored here"):
        store.size(NAME)
    assert uploads.put(NAME, 10, 4, VALUE[4:]) == 10
    assert store.verify(NAME)
    assert files(store) == [VALUE]
    assert path_of(store).stat().st_mode & 0o777 == 0o600


def test_a_piece_that_is_sent_again_or_does_not_continue_changes_nothing(store: BlobStore, uploads: BlobUploads):
    assert uploads.put(NAME, 10, 4, VALUE[4:]) == 0
    for _ in range(2):
        assert uploads.put(NAME, 10, 0, VALUE[:4]) == 4
    assert uploads.put(NAME, 10, 5, VALUE[5:]) == 4
    for _ in range(2):
        assert uploads.put(NAME, 10, 4, VALUE[4:]) == 10
    assert store.verify(NAME)


def test_a_blob_that_is_there_takes_no_piece_and_counts_as_stored_anew(store: BlobStore, uploads: BlobUploads):
    store.put(VALUE)
    path = path_of(store)
    os.utime(path, (0, 0))
    assert uploads.put(NAME, 10, 0, VALUE[:4]) == 10
    assert path.stat().st_mtime > 0
    assert files(store) == [VALUE]


def test_a_blob_that_was_cut_off_is_replaced(store: BlobStore, uploads: BlobUploads):
    store.put(VALUE)
    path_of(store).write_bytes(VALUE[:5])
    assert uploads.put(NAME, 10, 0, VALUE) == 10
    assert store.verify(NAME)


@pytest.mark.parametrize("piece", [b"012345678X", VALUE + b"!"])
def test_pieces_that_are_another_value_are_refused_and_leave_nothing(
    store: BlobStore, uploads: BlobUploads, piece: bytes
):
    with pytest.raises(InvalidArgument, match="do not make it up"):
        uploads.put(NAME, 10, 0, piece)
    assert files(store) == []
    assert uploads.put(NAME, 10, 0, VALUE) == 10


@pytest.mark.parametrize("name", ["../x", "", "X" * 64])
def test_no_other_name_is_taken(store: BlobStore, uploads: BlobUploads, name: str):
    with pytest.raises(StorageError, match="is not the name of a blob"):
        uploads.put(name, 10, 0, VALUE)


def test_one_upload_too_many_ends_the_oldest(store: BlobStore, uploads: BlobUploads):
    values = [f"value {number:2}".encode() for number in range(MAX_UPLOADS + 1)]
    names = [hashlib.sha256(value).hexdigest() for value in values]
    for name, value in zip(names, values, strict=True):
        assert uploads.put(name, 8, 0, value[:3]) == 3
    assert len(files(store)) == MAX_UPLOADS
    assert uploads.put(names[0], 8, 3, values[0][3:]) == 0
    assert uploads.put(names[-1], 8, 3, values[-1][3:]) == 8


def test_the_next_daemon_removes_what_came_half(store: BlobStore, uploads: BlobUploads):
    uploads.put(NAME, 10, 0, VALUE[:4])
    again = BlobUploads(BlobStore(store.folder))
    assert files(store) == []
    assert again.put(NAME, 10, 4, VALUE[4:]) == 0
    assert again.put(NAME, 10, 0, VALUE) == 10


def test_a_folder_that_cannot_be_written_is_reported(store: BlobStore, uploads: BlobUploads):
    (store.folder / "tmp").rmdir()
    with pytest.raises(StorageError, match="a value cannot be stored in"):
        uploads.put(NAME, 10, 0, VALUE)
