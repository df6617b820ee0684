"""What clients ask of the daemon about a notebook's cells and metadata, each with its reply."""

from __future__ import annotations

from typing import Literal

import msgspec

from runtimed.models import Attribution, CellType
from runtimed.protocol.bounds import Index, Number, Texts
from runtimed.protocol.operation import Edit, InRoom, OnSession, ReplyBody
from runtimed.protocol.replies import Done
from runtimed.protocol.session_operations import FoundIds

__all__ = [
    "AddCell",
    "AddDependencies",
    "AppendSource",
    "ClearOutputs",
    "DeleteCell",
    "DocumentDaemonOperation",
    "DocumentRoomOperation",
    "EditOperation",
    "FindCells",
    "GetCell",
    "GetCellReply",
    "GetCells",
    "GetCellsReply",
    "GetContent",
    "GetContentReply",
    "GetDependencies",
    "GetDependenciesReply",
    "GetMetadata",
    "GetMetadataReply",
    "MoveCell",
    "RemoveDependency",
    "RemoveDependencyReply",
    "SetCellMetadata",
    "SetCellType",
    "SetKernelspec",
    "SetMetadata",
    "SetSource",
    "StoredCell",
]


class FindCells(OnSession[FoundIds], frozen=True, tag="find_cells"):
    """Find the ids of cells that begin with a text, for somebody who types one, in the order of the cells.

    A session that never started has none. No use of the session.
    """

    prefix: str = ""


class AddCell(Edit[Done], frozen=True, tag="add_cell"):
    """Add a cell under an id that the client made."""

    cell_id: str
    source: str = ""
    cell_type: CellType = "code"
    index: Number | None = None


class SetSource(Edit[Done], frozen=True, tag="set_source"):
    """Give a cell a new source.

    With `base`, the text that the client knew, the difference from it to `source` is applied to the present text. It is
    left out where one of the two is too long to merge.
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
    """Move a cell behind another one, or to the front."""

    cell_id: str
    after_cell_id: str | None = None


class SetCellMetadata(Edit[Done], frozen=True, tag="set_cell_metadata"):
    """Set one value of a cell's metadata; `value` is a text, typically JSON."""

    cell_id: str
    key: str
    value: str


class SetCellType(Edit[Done], frozen=True, tag="set_cell_type"):
    """Make a cell one of another type."""

    cell_id: str
    cell_type: CellType


class ClearOutputs(Edit[Done], frozen=True, tag="clear_outputs"):
    """Detach a cell from its latest execution, whose events stay readable by id."""

    cell_id: str


class StoredCell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cell, and the beginning of what its latest execution gave.

    Attributes:
        source: None if source and metadata are more than a page, or were not asked for; `GetContent` gives them.
        metadata: Likewise.
        last_edit: Who made it; None where that is not recorded, or was not asked for.
        events: Those of its latest execution, each as its own bytes, up to the daemon's limit.
        more: The seq after which `ReadEvents` continues, or None.
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
    """None if there is no such cell."""

    cell: StoredCell | None = None


class GetCell(InRoom[GetCellReply], frozen=True, tag="get_cell"):
    """Read a cell, with or without outputs."""

    cell_id: str
    outputs: bool = True


class GetCellsReply(ReplyBody, frozen=True):
    """A page of cells. `next` is the index of the first one behind it, None at the end."""

    cells: list[StoredCell]
    next: int | None = None


class GetCells(InRoom[GetCellsReply], frozen=True, tag="get_cells"):
    """Read cells from index `start`, until a page is full.

    Without `content` no cell has its source, its metadata or its latest edit.
    """

    start: Index = 0
    outputs: bool = True
    content: bool = True


class GetContentReply(ReplyBody, frozen=True):
    """A piece of a cell's content.

    Attributes:
        piece: At most 1 MiB of the MessagePack of `{source, metadata}`.
        size: Bytes of all of it.
        sha256: That of all of it. Who edits the cell meanwhile changes it.
    """

    piece: bytes
    size: int
    sha256: str


class GetContent(InRoom[GetContentReply], frozen=True, tag="get_content"):
    """Read a piece of a cell's source and metadata, from `offset`. Raises CellNotFound."""

    cell_id: str
    offset: Index = 0


class SetMetadata(Edit[Done], frozen=True, tag="set_metadata"):
    """Set a value of the document's metadata; `value` is a text, typically JSON."""

    key: str
    value: str


class SetKernelspec(Edit[Done], frozen=True, tag="set_kernelspec"):
    """Say in the notebook's metadata which kernel it is meant for."""

    name: str
    display_name: str
    language: str | None = None


class GetMetadataReply(ReplyBody, frozen=True):
    """None if the value is not set."""

    value: str | None = None


class GetMetadata(InRoom[GetMetadataReply], frozen=True, tag="get_metadata"):
    """Read a value of the document's metadata."""

    key: str


class GetDependenciesReply(ReplyBody, frozen=True):
    """Those that the notebook names in its metadata."""

    dependencies: list[str]


class GetDependencies(InRoom[GetDependenciesReply], frozen=True, tag="get_dependencies"):
    """Read which dependencies the notebook names in its metadata."""

    manager: Literal["uv", "conda"]


class AddDependencies(Edit[Done], frozen=True, tag="add_dependencies"):
    """Write dependencies into the notebook's metadata, in place of those of the same packages."""

    manager: Literal["uv", "conda"]
    packages: Texts


class RemoveDependencyReply(ReplyBody, frozen=True):
    """`removed` is whether it was there."""

    removed: bool


class RemoveDependency(Edit[RemoveDependencyReply], frozen=True, tag="remove_dependency"):
    """Take a package's dependency out of the notebook's metadata."""

    manager: Literal["uv", "conda"]
    package: str


DocumentDaemonOperation = FindCells
"""Those which the daemon performs itself: no room is opened for them."""

DocumentRoomOperation = GetCell | GetCells | GetContent | GetMetadata | GetDependencies
"""Those which are performed in a session's room."""

EditOperation = (
    AddCell
    | SetSource
    | AppendSource
    | DeleteCell
    | MoveCell
    | SetCellMetadata
    | SetCellType
    | ClearOutputs
    | SetMetadata
    | SetKernelspec
    | AddDependencies
    | RemoveDependency
)
"""Edits of the document."""
