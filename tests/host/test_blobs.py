"""A host's large values: in the daemon's folder they stay, in the host's own they wait until the daemon has them."""

import hashlib
from pathlib import Path

import pytest

from runtimed.errors import StorageError
from runtimed.host.blobs import PIECE, HostBlobs


def test_values_that_the_daemon_has_in_its_own_folder_are_not_dropped(tmp_path: Path) -> None:
    blobs = HostBlobs(tmp_path / "host", str(tmp_path / "shared"))
    name = blobs.put(b"large")
    blobs.drop(name)
    assert (blobs.read(name, 0), (tmp_path / "host").exists()) == (b"large", False)


def test_values_of_its_own_are_read_in_pieces_and_dropped(tmp_path: Path) -> None:
    blobs = HostBlobs(tmp_path, "")
    data = b"x" * PIECE + b"rest"
    name = blobs.put(data)
    assert name == hashlib.sha256(data).hexdigest()
    assert [len(blobs.read(name, offset)) for offset in (0, PIECE, PIECE + 4)] == [PIECE, 4, 0]
    blobs.drop(name)
    blobs.drop(name)
    with pytest.raises(StorageError):
        blobs.read(name, 0)
