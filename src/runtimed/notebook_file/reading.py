"""Reads the text of an .ipynb file. Nothing here opens a file or talks to anybody."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["FileCell", "NotebookFile", "read_notebook"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCell:
    """A cell of a notebook file, without its outputs.

    Attributes:
        id: Its id; made from its place and the file's path where the file has none (before format 4.5).
    """

    id: str
    cell_type: Literal["code", "markdown", "raw"]
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_executed(self) -> bool:
        """Whether running the notebook runs it. Source: nbclient, `skip_cells_with_tag`."""
        return self.cell_type == "code" and bool(self.source.strip()) and "skip-execution" not in self._tags

    @property
    def may_fail(self) -> bool:
        """Whether the notebook goes on after an error of this cell. Source: nbclient, `raises-exception`."""
        return "raises-exception" in self._tags

    @property
    def _tags(self) -> Any:
        tags = self.metadata.get("tags")
        return tags if isinstance(tags, list) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookFile:
    """What a notebook file holds, but for outputs."""

    metadata: Mapping[str, Any]
    cells: tuple[FileCell, ...]

    @property
    def executed(self) -> tuple[FileCell, ...]:
        """The cells that running the notebook runs."""
        return tuple(cell for cell in self.cells if cell.is_executed)

    @property
    def language(self) -> str:
        """The language of its code, in lower case."""
        for name, key in (("kernelspec", "language"), ("language_info", "name")):
            part = self.metadata.get(name)
            if isinstance(part, dict) and isinstance(part.get(key), str):
                return str(part[key]).lower()
        return "python"

    @property
    def kernel_name(self) -> str | None:
        """The name of its kernelspec."""
        spec = self.metadata.get("kernelspec")
        name = spec.get("name") if isinstance(spec, dict) else None
        return name if isinstance(name, str) else None


def read_notebook(text: str, path: Path) -> NotebookFile:
    """Read the text of a notebook file; formats before 4 are converted.

    Args:
        text: What the file holds.
        path: Where the file is; ids of cells without one are made from it.

    Raises:
        ValueError: If it is no notebook, or a damaged one; the sentence says why.

    Source: The Jupyter notebook format, nbformat 5.11.
    """
    import nbformat  # noqa: PLC0415  # takes longer than all else that the command line imports
    from nbformat import converter, reader  # noqa: PLC0415

    try:
        content = reader.parse_json(text)  # type: ignore[no-untyped-call]  # nbformat annotates none of the three
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"it is no notebook: {exc.__cause__ or exc}") from exc
    if not isinstance(content, dict) or "nbformat" not in content:
        raise ValueError("it is no notebook")
    try:
        notebook = reader.reads(text)  # type: ignore[no-untyped-call]
        notebook = converter.convert(notebook, nbformat.current_nbformat)  # type: ignore[no-untyped-call]
        cells = tuple(_cell(path, number, cell) for number, cell in enumerate(notebook["cells"]))
        metadata = dict(notebook.get("metadata") or {})
    except (nbformat.ValidationError, ValueError, LookupError, TypeError, AttributeError) as exc:
        raise ValueError(f"it is a damaged notebook: {exc}") from exc
    ids = [cell.id for cell in cells]
    double = next((one for one in ids if ids.count(one) > 1), None)
    if double is not None:
        raise ValueError(f"two of its cells have the id {double!r}")
    return NotebookFile(metadata=metadata, cells=cells)


def _cell(path: Path, number: int, cell: Any) -> FileCell:
    kind, source = cell["cell_type"], cell["source"]
    if kind not in ("code", "markdown", "raw"):
        raise ValueError(f"cell {number + 1} is of the type {kind!r}, which there is not")
    if not isinstance(source, str):
        raise TypeError(f"the source of cell {number + 1} is no text")
    made = f"cell-{uuid.uuid5(uuid.NAMESPACE_URL, f'{path.resolve().as_uri()}#{number}')}"
    return FileCell(
        id=str(cell.get("id") or made), cell_type=kind, source=source, metadata=dict(cell.get("metadata") or {})
    )
