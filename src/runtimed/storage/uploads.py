"""Large values that arrive in pieces, until they are whole blobs. Nothing here waits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runtimed.errors import InvalidArgument
from runtimed.storage.blobs import BlobStore

__all__ = ["BlobUploads"]

MAX_UPLOADS: Final = 8
"""Most uploads at one time. One more ends the one that has had no piece for the longest time, which begins anew."""


@dataclass(slots=True)
class _Upload:
    path: Path
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class BlobUploads:
    """Takes blobs piece by piece. With the daemon the incomplete ones end; the next daemon removes their files."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._uploads: dict[str, _Upload] = {}

    def put(self, sha256: str, size: int, offset: int, piece: bytes) -> int:
        """Store a piece of a blob.

        Args:
            sha256: SHA-256 of the blob in hexadecimal.
            size: Its size, in bytes.
            offset: Where the piece begins. One that does not continue what is stored changes nothing.
            piece: The piece.

        Returns:
            How many bytes of the blob are stored.

        Raises:
            InvalidArgument: If all pieces together are not that blob; it begins anew.
            StorageError: If it cannot be stored.
        """
        upload = self._uploads.pop(sha256, None)
        if upload is None:
            if self._store.renew(sha256) and self._store.size(sha256) == size:
                return size
            upload = _Upload(self._store.new_file())
        self._uploads[sha256] = upload
        while len(self._uploads) > MAX_UPLOADS:
            self._drop(next(iter(self._uploads)))
        if offset == upload.size:
            self._store.append(upload.path, piece)
            upload.digest.update(piece)
            upload.size += len(piece)
        if upload.size < size:
            return upload.size
        if upload.digest.hexdigest() != sha256:
            self._drop(sha256)
            raise InvalidArgument(f"The pieces of the blob {sha256} do not make it up", argument="piece")
        self._store.take(upload.path, sha256)
        del self._uploads[sha256]
        return size

    def _drop(self, sha256: str) -> None:
        self._uploads.pop(sha256).path.unlink(missing_ok=True)
