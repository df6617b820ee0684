"""Reads the text of an .ipynb file. Nothing here opens a file or talks to anybody."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from runtimed.errors import NotebookFileError

__all__ = ["FORMAT", "FileCell", "NotebookFile", "read_notebook", "without_transient"]

FORMAT: Final = (4, 5)
"""The notebook format that is written. Source: The Jupyter notebook format, 4.5, the first with cell ids."""

_TRANSIENT: Final = frozenset({"trusted", "signature", "orig_nbformat", "orig_nbformat_minor"})

_OUTPUT_TYPES: Final = ("stream", "display_data", "execute_result", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCell:
    """A cell of a notebook file.

    Attributes:
        id: Its id; made from its place and the file's path where the file has none (before format 4.5).
        metadata: JSON values.
        attachments: For a markdown or raw cell, its files by name: values by MIME type.
        execution_count: For a code cell, its `In[n]`.
        outputs: For a code cell, its outputs as the format has them, with multi-line texts joined.
    """

    id: str
    cell_type: Literal["code", "markdown", "raw"]
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attachments: Mapping[str, Any] = field(default_factory=dict)
    execution_count: int | None = None
    outputs: tuple[Mapping[str, Any], ...] = ()

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
    """What a notebook file holds.

    Attributes:
        metadata: JSON values.
        version: The file's format, major and minor; the rest is as FORMAT has it.
    """

    metadata: Mapping[str, Any]
    cells: tuple[FileCell, ...]
    version: tuple[int, int] = FORMAT

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
    """Read the text of a notebook file; formats before 4.5 are converted.

    A newer minor version is read as far as it is known; writing it back would lose what is not.

    Args:
        text: What the file holds.
        path: Where the file is; ids of cells without one are made from it.

    Raises:
        NotebookFileError: If it is no notebook, or a damaged one; the sentence says why.

    Source: The Jupyter notebook format, nbformat 5.11.
    """
    try:
        return _read(text, path)
    except ValueError as exc:
        raise NotebookFileError(f"{path} cannot be read: {exc}", path=str(path)) from exc


def _read(text: str, path: Path) -> NotebookFile:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"it is no notebook: {exc}") from exc
    if not isinstance(content, dict) or "nbformat" not in content:
        raise ValueError("it is no notebook")
    try:
        version = content["nbformat"], content.get("nbformat_minor", 0)
        if not all(isinstance(part, int) for part in version):
            raise TypeError(f"its format is {version[0]!r}.{version[1]!r}")
        if version[0] > FORMAT[0]:
            raise ValueError(f"it has the format {version[0]}, and formats up to {FORMAT[0]} are known")
        is_known = version[0] == FORMAT[0]
        content = content if is_known else _converted(text)
        # Ids that the conversion has made are others each time.
        cells = tuple(_cell(path, number, cell, has_id=is_known) for number, cell in enumerate(content["cells"]))
        metadata = without_transient(content.get("metadata") or {})
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise ValueError(f"it is a damaged notebook: {exc}") from exc
    ids = [cell.id for cell in cells]
    if len(set(ids)) < len(ids):
        double = next(one for one in ids if ids.count(one) > 1)
        raise ValueError(f"two of its cells have the id {double!r}")
    return NotebookFile(metadata=metadata, cells=cells, version=version)


def _converted(text: str) -> Any:
    """Convert a notebook of an older major format."""
    import nbformat  # noqa: PLC0415  # takes longer than all else that the command line imports
    from nbformat import converter, reader  # noqa: PLC0415

    try:
        return converter.convert(reader.reads(text), FORMAT[0])  # type: ignore[no-untyped-call]  # nbformat annotates neither
    except nbformat.ValidationError as exc:
        raise ValueError(str(exc)) from exc


def without_transient(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata of a notebook or cell without the marks that Jupyter keeps in no file.

    Source: nbformat 5.11, `rwbase.strip_transient`.
    """
    return {key: value for key, value in metadata.items() if key not in _TRANSIENT}


def _cell(path: Path, number: int, cell: Any, *, has_id: bool) -> FileCell:
    kind, source = cell["cell_type"], _joined(cell["source"])
    if kind not in ("code", "markdown", "raw"):
        raise ValueError(f"cell {number + 1} is of the type {kind!r}, which there is not")
    if not isinstance(source, str):
        raise TypeError(f"the source of cell {number + 1} is no text")
    made = f"cell-{uuid.uuid5(uuid.NAMESPACE_URL, f'{path.resolve().as_uri()}#{number}')}"
    is_code, count = kind == "code", cell.get("execution_count")
    attachments = {} if is_code else cell.get("attachments") or {}
    return FileCell(
        id=str((has_id and cell.get("id")) or made),
        cell_type=kind,
        source=source,
        metadata=without_transient(cell.get("metadata") or {}),
        attachments={name: _bundle(bundle) for name, bundle in attachments.items()},
        execution_count=count if is_code and isinstance(count, int) and not isinstance(count, bool) else None,
        outputs=tuple(_output(number, output) for output in cell.get("outputs") or ()) if is_code else (),
    )


def _output(number: int, output: Any) -> dict[str, Any]:
    kind = output["output_type"]
    if kind not in _OUTPUT_TYPES:
        raise ValueError(f"an output of cell {number + 1} is of the type {kind!r}, which there is not")
    if kind == "stream":
        return {**output, "text": _joined(output["text"])}
    return {**output, "data": _bundle(output["data"])} if kind != "error" else dict(output)


def _bundle(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by MIME type with lines joined; a JSON value stays, whatever it is."""
    return {mime: value if _is_json(mime) else _joined(value) for mime, value in bundle.items()}


def _is_json(mime: str) -> bool:
    """Whether values of a MIME type are JSON values. Source: nbformat 4, "MIME type keys"."""
    return mime == "application/json" or (mime.startswith("application/") and mime.endswith("+json"))


def _joined(value: Any) -> Any:
    """Return a text of several lines as one, and anything else as it is."""
    return "".join(value) if isinstance(value, list) and all(isinstance(line, str) for line in value) else value
