"""Operations on a notebook's cells and metadata, each with its reply."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from runtimed.ids import CellId
from runtimed.models import Attribution, CellType, NotebookEdit
from runtimed.protocol.bounds import MAX_ITEMS, Bodies, Entries, Index, Number, Texts
from runtimed.protocol.operation import Edit, InRoom, OnSession, ReplyBody
from runtimed.protocol.replies import Done
from runtimed.protocol.session_operations import FoundIds

__all__ = [
    "MAX_BLOB",
    "MAX_COPY",
    "MAX_HISTORY_PAGE",
    "AddCell",
    "AddDependencies",
    "AppendSource",
    "BlameContent",
    "ClearOutputs",
    "DeleteCell",
    "DocumentDaemonOperation",
    "DocumentRoomOperation",
    "EditOperation",
    "FindCells",
    "GetBlame",
    "GetCell",
    "GetCellReply",
    "GetCells",
    "GetCellsReply",
    "GetContent",
    "GetContentReply",
    "GetDependencies",
    "GetDependenciesReply",
    "GetDocument",
    "GetHistory",
    "GetHistoryReply",
    "GetMetadata",
    "GetMetadataReply",
    "GetVersion",
    "HistoryPiece",
    "ImportCells",
    "ImportOutputs",
    "ImportOutputsReply",
    "ImportedCell",
    "MergeCopy",
    "MergeCopyReply",
    "MoveCell",
    "PutBlob",
    "PutBlobReply",
    "RemoveDependency",
    "RemoveDependencyReply",
    "RestoreVersion",
    "RestoreVersionReply",
    "SetCellMetadata",
    "SetCellType",
    "SetKernelspec",
    "SetMetadata",
    "SetSource",
    "StoredCell",
    "VersionContent",
]

MAX_HISTORY_PAGE: Final = 1000
"""Most edits of a notebook's history in one reply."""

MAX_BLOB: Final = 2**30
"""Largest value in an output that a client brings, in bytes: that of the largest file that is read."""

MAX_COPY: Final = 15 * 2**20
"""Largest copy of a document that is merged, in bytes: what fits into a message."""


class FindCells(OnSession[FoundIds], frozen=True, tag="find_cells"):
    """Find the cell ids that begin with a prefix, in the order of the cells, for completion.

    Raises SessionNotFound if the session never started. Does not count as use.
    """

    prefix: str = ""


class AddCell(Edit[Done], frozen=True, tag="add_cell"):
    """Add a cell with an id that the client made; appended if `index` is None. Idempotent."""

    cell_id: str
    source: str = ""
    cell_type: CellType = "code"
    index: Number | None = None


class SetSource(Edit[Done], frozen=True, tag="set_source"):
    """Replace a cell's source.

    With `base`, the source that the client started from, the edits from `base` to `source` are merged into the present
    one. Clients omit it if one of the two is too long to merge.
    """

    cell_id: str
    source: str
    base: str | None = None


class AppendSource(Edit[Done], frozen=True, tag="append_source"):
    """Append text to a cell's source."""

    cell_id: str
    text: str


class DeleteCell(Edit[Done], frozen=True, tag="delete_cell"):
    """Delete a cell."""

    cell_id: str


class MoveCell(Edit[Done], frozen=True, tag="move_cell"):
    """Move a cell behind another one, or to the front if `after_cell_id` is None."""

    cell_id: str
    after_cell_id: str | None = None


class SetCellMetadata(Edit[Done], frozen=True, tag="set_cell_metadata"):
    """Set a value of a cell's metadata; `value` is JSON text. Without it, delete the key."""

    cell_id: str
    key: str
    value: str | None = None


class ImportedCell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cell of a file.

    Attributes:
        after: The cell behind which a new one stands; the front for None, the end for one that does not exist.
        base: For an existing cell, its source that `source` replaces; see `SetSource`.
        metadata: Values are JSON texts. An existing cell has exactly these afterwards.
        execution_id: The execution that has its outputs, with an id made from cell and outputs; None for no outputs.
        status: How that execution ended.
        brought: Number of its events that `ImportOutputs` has brought.
        events: Its further events, encoded: outputs, in order.
    """

    cell_id: str
    after: str | None = None
    cell_type: CellType
    source: str
    base: str | None = None
    metadata: Entries = msgspec.field(default_factory=dict)
    execution_count: Index | None = None
    execution_id: str | None = None
    status: Literal["ok", "error"] = "ok"
    brought: Index = 0
    events: Bodies = msgspec.field(default_factory=list)


class ImportCells(Edit[Done], frozen=True, tag="import_cells"):
    """Add or replace cells with their outputs, in one transaction. It is no consent to dependencies in them.

    The outputs become an execution that has ended. Idempotent.

    Attributes:
        metadata: The notebook's metadata, as JSON text; None leaves them as they are.
    """

    cells: Annotated[list[ImportedCell], msgspec.Meta(max_length=MAX_ITEMS)]
    metadata: str | None = None


class ImportOutputsReply(ReplyBody, frozen=True):
    """`stored` is the number of the execution's events that are stored: the next ones begin there."""

    stored: int


class ImportOutputs(InRoom[ImportOutputsReply], frozen=True, tag="import_outputs"):
    """Bring some of the outputs of a cell that `ImportCells` brings next, if they are too large for one message.

    Until then no cell shows them. Idempotent: events that do not continue those that are stored change nothing.

    Attributes:
        source: The code of the execution; needed with the first events.
        first: Number of the first of these events in the execution, from 0.
        events: Encoded events: outputs, in order.
    """

    execution_id: str
    cell_id: str
    first: Index
    events: Bodies
    source: str = ""


class PutBlobReply(ReplyBody, frozen=True):
    """`stored` is the number of the blob's bytes that are stored: the next piece begins there."""

    stored: int


class PutBlob(InRoom[PutBlobReply], frozen=True, tag="put_blob"):
    """Store a piece of a large value in an output that `ImportCells` or `ImportOutputs` brings next.

    Idempotent. Raises InvalidArgument if all pieces together are not the blob.
    """

    sha256: str
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOB)]
    offset: Index
    piece: bytes


class SetCellType(Edit[Done], frozen=True, tag="set_cell_type"):
    """Change a cell's type."""

    cell_id: str
    cell_type: CellType


class ClearOutputs(Edit[Done], frozen=True, tag="clear_outputs"):
    """Detach a cell from its latest execution. The execution's events stay readable by its id."""

    cell_id: str


class StoredCell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cell, with the first events of its latest execution.

    Attributes:
        source: None if source and metadata are larger than a page, or not requested; see `GetContent`.
        metadata: Likewise. Values are JSON texts; any other text stands for itself.
        last_edit: Who made the last edit; None if that is not recorded, or not requested.
        events: Encoded events of its latest execution, up to the daemon's limit.
        more: The number after which `ReadEvents` continues; None if there are no more events.
    """

    id: str
    cell_type: CellType
    source: str | None = None
    execution_count: int | None = None
    execution_id: str | None = None
    metadata: dict[str, str] | None = None
    position: str
    last_edit: Attribution | None = None
    events: list[bytes] = msgspec.field(default_factory=list)
    more: int | None = None


class GetCellReply(ReplyBody, frozen=True):
    """The cell; None if there is none of this id."""

    cell: StoredCell | None = None


class GetCell(InRoom[GetCellReply], frozen=True, tag="get_cell"):
    """Read a cell, with or without outputs."""

    cell_id: str
    outputs: bool = True


class GetCellsReply(ReplyBody, frozen=True):
    """A page of cells. `next` is the index of the next page's first cell, None at the end."""

    cells: list[StoredCell]
    next: int | None = None


class GetCells(InRoom[GetCellsReply], frozen=True, tag="get_cells"):
    """Read a page of cells from index `start`.

    Without `content`, the cells have neither source, metadata nor last edit.
    """

    start: Index = 0
    outputs: bool = True
    content: bool = True


class GetContentReply(ReplyBody, frozen=True):
    """A piece of a cell's content, or of the document.

    Attributes:
        piece: At most 1 MiB; of a cell's content, of the MessagePack of `{source, metadata}`.
        size: Size of all of it, in bytes.
        sha256: SHA-256 of all of it, which an edit between two pieces changes.
    """

    piece: bytes
    size: int
    sha256: str


class GetContent(InRoom[GetContentReply], frozen=True, tag="get_content"):
    """Read a piece of a cell's source and metadata from `offset`. Raises CellNotFound."""

    cell_id: str
    offset: Index = 0


class GetDocument(InRoom[GetContentReply], frozen=True, tag="get_document"):
    """Read a piece of the Automerge document from `offset`, with all edits so far when it begins.

    It is a snapshot with the changes since, which Automerge loads as they are. Raises StorageError.
    """

    offset: Index = 0


class SetMetadata(Edit[Done], frozen=True, tag="set_metadata"):
    """Set a value of the notebook's metadata; `value` is text, typically JSON."""

    key: str
    value: str


class SetKernelspec(Edit[Done], frozen=True, tag="set_kernelspec"):
    """Set the kernelspec in the notebook's metadata."""

    name: str
    display_name: str
    language: str | None = None


class GetMetadataReply(ReplyBody, frozen=True):
    """The value; None if the key is not set."""

    value: str | None = None


class GetMetadata(InRoom[GetMetadataReply], frozen=True, tag="get_metadata"):
    """Read a value of the notebook's metadata."""

    key: str


class GetDependenciesReply(ReplyBody, frozen=True):
    """The dependencies in the notebook's metadata."""

    dependencies: list[str]


class GetDependencies(InRoom[GetDependenciesReply], frozen=True, tag="get_dependencies"):
    """Read the dependencies in the notebook's metadata."""

    manager: Literal["uv", "conda"]


class AddDependencies(Edit[Done], frozen=True, tag="add_dependencies"):
    """Add dependencies to the notebook's metadata, replacing those on the same packages."""

    manager: Literal["uv", "conda"]
    packages: Texts


class RemoveDependencyReply(ReplyBody, frozen=True):
    """`removed` is whether there was such a dependency."""

    removed: bool


class RemoveDependency(Edit[RemoveDependencyReply], frozen=True, tag="remove_dependency"):
    """Remove the dependency on a package from the notebook's metadata."""

    manager: Literal["uv", "conda"]
    package: str


class GetHistoryReply(ReplyBody, frozen=True):
    """A page of a notebook's edits, newest first. `next` is the next page's `before`, None after the last page."""

    edits: list[NotebookEdit]
    next: int | None = None


class GetHistory(InRoom[GetHistoryReply], frozen=True, tag="get_history"):
    """Read a page of the notebook's edits, those of one cell or all, with versions below `before`."""

    cell_id: str | None = None
    before: Index | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_HISTORY_PAGE)] = 200


class VersionContent(msgspec.Struct, frozen=True, kw_only=True):
    """What a notebook said at a version.

    Attributes:
        cells: In order, without events.
        metadata: The notebook's metadata.
    """

    cells: list[StoredCell]
    metadata: dict[str, str]


class HistoryPiece(ReplyBody, frozen=True):
    """A piece of something that belongs to a version of the notebook, and never changes.

    Attributes:
        piece: At most 1 MiB of its MessagePack.
        size: Size of all of it, in bytes.
        version: The version.
    """

    piece: bytes
    size: int
    version: int


class GetVersion(InRoom[HistoryPiece], frozen=True, tag="get_version"):
    """Read a piece of what the notebook said at a version (`VersionContent`), from `offset`. Raises VersionNotFound."""

    version: Index
    offset: Index = 0


class BlameContent(msgspec.Struct, frozen=True, kw_only=True):
    """Which edit wrote each line of a cell.

    Attributes:
        source: The cell's source; None if the notebook did not have the cell.
        versions: For each line, separated by `\n`, the version of the edit that wrote it.
    """

    source: str | None = None
    versions: list[int] = []


class GetBlame(InRoom[HistoryPiece], frozen=True, tag="get_blame"):
    """Read a piece of which edit wrote each line of a cell (`BlameContent`), from `offset`.

    Without `version`, as the cell is now; the reply says the version, which is asked for with the next pieces. Raises
    VersionNotFound.
    """

    cell_id: str
    version: Index | None = None
    offset: Index = 0


class RestoreVersionReply(ReplyBody, frozen=True):
    """`edits` is the number of edits that were made."""

    edits: int


class RestoreVersion(InRoom[RestoreVersionReply], frozen=True, tag="restore_version"):
    """Edit the notebook so that it says what it said at a version. A resent request is deduplicated.

    Raises VersionNotFound.
    """

    outlives_client = True

    version: Index


class MergeCopyReply(ReplyBody, frozen=True):
    """The cells that the copy added, changed and deleted."""

    added: list[CellId]
    changed: list[CellId]
    deleted: list[CellId]


class MergeCopy(InRoom[MergeCopyReply], frozen=True, tag="merge_copy"):
    """Merge a copy of the Automerge document (`GetDocument`) that was edited elsewhere. Idempotent.

    A resent request is deduplicated. It is no consent to dependencies in the copy. Raises NotebookFileError and
    StorageError; nothing is merged then.
    """

    outlives_client = True

    copy: Annotated[bytes, msgspec.Meta(max_length=MAX_COPY)]


DocumentDaemonOperation = FindCells
"""Operations that the daemon performs itself, without opening a room."""

DocumentRoomOperation = (
    GetCell
    | GetCells
    | GetContent
    | GetDocument
    | GetMetadata
    | GetDependencies
    | GetHistory
    | GetVersion
    | GetBlame
    | RestoreVersion
    | MergeCopy
    | ImportOutputs
    | PutBlob
)
"""Operations that are performed in a session's room."""

EditOperation = (
    AddCell
    | SetSource
    | AppendSource
    | DeleteCell
    | MoveCell
    | SetCellMetadata
    | ImportCells
    | SetCellType
    | ClearOutputs
    | SetMetadata
    | SetKernelspec
    | AddDependencies
    | RemoveDependency
)
"""Edits of the notebook."""
