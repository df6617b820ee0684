"""Stores the large values of a host's events: in the daemon's folder, or here until the daemon has fetched them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from runtimed.storage.blobs import BlobStore

__all__ = ["HostBlobs"]

PIECE: Final = 2**20
"""Bytes of one read of a blob."""


class HostBlobs:
    """A host's store for large values.

    Args:
        folder: The host's folder.
        shared: The daemon's folder of blobs; empty if it is out of reach.

    Raises:
        StorageError: If the store cannot be created.
    """

    def __init__(self, folder: Path, shared: str) -> None:
        self._is_own = not shared
        self._store = BlobStore(Path(shared) if shared else folder / "blobs")

    def put(self, data: bytes) -> str:
        """Store a value, and return its SHA-256 in hexadecimal.

        Raises:
            StorageError: If it could not be written.
        """
        return self._store.put(data)

    def read(self, sha256: str, offset: int) -> bytes:
        """Return at most PIECE bytes of a blob from `offset` on; empty at its end.

        Raises:
            StorageError: If it is not here, or cannot be read.
        """
        return self._store.read(sha256, offset, PIECE)

    def drop(self, sha256: str) -> None:
        """Delete a blob that the daemon has. A blob in the daemon's folder stays.

        Raises:
            StorageError: If it cannot be deleted.
        """
        if self._is_own:
            self._store.remove_unused(sha256, time.time() + 1)
