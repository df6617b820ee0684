"""What a client does with notebook files: reads and merges them, saves sessions, exports them. No daemon here."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, get_args

import msgspec

from runtimed.client.calls.files import Contents, Imports, imports_of
from runtimed.client.given import check_choice
from runtimed.errors import InvalidCell, NotebookFileError, RuntimedError, SessionError
from runtimed.ids import CellId, SessionId
from runtimed.models import OpenedNotebook
from runtimed.notebook_file.merging import FileRecord, cells_with_new_outputs, merge, record_of
from runtimed.notebook_file.reading import FORMAT, NotebookFile, read_notebook
from runtimed.notebook_file.writing import file_id, with_former_outputs, write_notebook
from runtimed.protocol.document_operations import MAX_COPY
from runtimed.settings import read_settings

__all__ = [
    "KERNELSPECS",
    "ExportFormat",
    "ReadNotebook",
    "Save",
    "check_format",
    "export",
    "file_to_own",
    "is_document",
    "lock_file_of",
    "merge_file",
    "new_file",
    "outputs_to_compare",
    "prepare_save",
    "read_document_file",
    "read_importable",
    "read_notebook_file",
    "write_file",
]

TextFormat = Literal["ipynb", "py", "md", "html"]
ExportFormat = TextFormat | Literal["automerge"]

KERNELSPECS: Final = {
    "python": ("python3", "Python 3 (ipykernel)", "python"),
    "deno": ("deno", "Deno", "typescript"),
}
"""Name, display name and language of the kernelspec that a new file gets, by kernel type. Source: their packages."""

_TEXT_FORMATS: Final = {".py": "py:percent", ".md": "md"}

_NEEDED: Final = {"jupytext": "pip install 'ipython-runtimed[files]'", "nbconvert": "pip install nbconvert"}


def new_file(path: str | os.PathLike[str]) -> Path:
    """Return the real path of a file that is to be made.

    Raises:
        NotebookFileError: If there is one already.
    """
    from runtimed.storage.notebook_files import real_path  # noqa: PLC0415  # brings SQLite

    real = real_path(path)
    if os.path.lexists(real):
        raise NotebookFileError(f"{real} exists already: open_notebook() takes its cells in", path=str(real))
    return real


def file_to_own(path: str | os.PathLike[str] | None) -> Path | None:
    """Return the real path of the file that a session is saved to; None for the one that it has."""
    from runtimed.storage.notebook_files import real_path  # noqa: PLC0415  # brings SQLite

    return None if path is None else real_path(path)


def lock_file_of(session_id: SessionId) -> BinaryIO:
    """Return a lock that others wait for who save or open the session's file; closing it lets them go on."""
    from runtimed.storage.notebook_files import lock_saving  # noqa: PLC0415  # brings SQLite

    return lock_saving(read_settings().files_dir, session_id)


@dataclass(frozen=True, slots=True)
class ReadNotebook:
    """A file that was read.

    Attributes:
        record: What a session knows of it from now on, with its real path.
        content: What it has, with ids that the format admits.
        ids: The ids that it has, by those.
    """

    record: FileRecord
    content: NotebookFile
    ids: Mapping[str, CellId]

    @classmethod
    def of(cls, real: Path, content: NotebookFile) -> ReadNotebook:
        """Describe a file: a session writes an id that the format does not admit as another one."""
        cells = tuple(replace(cell, id=file_id(cell.id)) for cell in content.cells)
        ids = {file_id(cell.id): CellId(cell.id) for cell in content.cells}
        content = replace(content, cells=cells)
        return cls(record_of(str(real), content), content, ids)

    @property
    def path(self) -> Path:
        """The file's real path."""
        return Path(self.record.path)


def read_notebook_file(path: str | os.PathLike[str]) -> ReadNotebook:
    """Read an .ipynb file.

    Raises:
        NotebookFileError: If there is none, or it is not understood.
    """
    real, text = _read(path)
    return ReadNotebook.of(real, _understood(text, real))


def read_importable(path: str | os.PathLike[str]) -> ReadNotebook:
    """Read an .ipynb file, a script with cells in percent format, or Markdown.

    The suffix says which: `.py`, `.md`; any other is a notebook.

    Raises:
        NotebookFileError: If there is none, or it is not understood.
        RuntimedError: If the package that reads the format is not installed.
    """
    real, text = _read(path)
    fmt = _TEXT_FORMATS.get(real.suffix.lower())
    if fmt is None:
        return ReadNotebook.of(real, _understood(text, real))
    jupytext = _imported("jupytext", f"a {real.suffix} file can be read")
    try:
        node = jupytext.reads(text, fmt=fmt)
    except (ValueError, SyntaxError, LookupError, jupytext.formats.JupytextFormatError) as exc:
        raise NotebookFileError(f"{real} cannot be read: {exc}", path=str(real)) from exc
    node.metadata.pop("jupytext", None)
    node.nbformat_minor = 4  # without ids: those that were made are others each time
    for cell in node.cells:
        cell.pop("id", None)
    return ReadNotebook.of(real, replace(read_notebook(json.dumps(node), real), version=FORMAT))


def is_document(path: str | os.PathLike[str]) -> bool:
    """Whether a file's suffix says that it is an Automerge document."""
    return Path(path).suffix.lower() == ".automerge"


def read_document_file(path: str | os.PathLike[str]) -> tuple[Path, bytes]:
    """Read an Automerge document; return its real path, and its bytes.

    Raises:
        NotebookFileError: If there is none, or it is larger than MAX_COPY.
    """
    from runtimed.storage.notebook_files import read_bytes, real_path  # noqa: PLC0415  # brings SQLite

    real = real_path(path)
    found = read_bytes(real, MAX_COPY)
    if found is None:
        raise _missing(real)
    return real, found[0]


def _missing(path: Path) -> NotebookFileError:
    return NotebookFileError(f"There is no file {path}", path=str(path))


def _read(path: str | os.PathLike[str]) -> tuple[Path, str]:
    from runtimed.storage.notebook_files import read_file, real_path  # noqa: PLC0415  # brings SQLite

    real = real_path(path)
    file = read_file(real)
    if file is None:
        raise _missing(real)
    return real, file.text


def _understood(text: str, real: Path) -> NotebookFile:
    notebook = read_notebook(text, real)
    if notebook.version > FORMAT:
        raise NotebookFileError(
            f"{real} has the format {_dotted(notebook.version)}; this version knows formats up to {_dotted(FORMAT)}, "
            "and would lose what is new in it",
            path=str(real),
        )
    return notebook


def outputs_to_compare(contents: Contents, file: ReadNotebook) -> list[CellId]:
    """Return the session's cells whose outputs a merge has to know: the file has others than it had.

    Args:
        contents: The session, without outputs.
        file: The file.
    """
    found = cells_with_new_outputs(_base(contents, file), contents.notebook, file.content)
    return [contents.cell_ids[cell_id] for cell_id in found]


def merge_file(contents: Contents, file: ReadNotebook, *, becomes_its_own: bool) -> tuple[Imports, OpenedNotebook]:
    """Merge a file into a session: return what the session takes, and what to tell of it.

    Args:
        contents: The session, with the outputs of the cells that `outputs_to_compare` has returned.
        file: The file.
        becomes_its_own: Whether it is the session's file from now on.

    Raises:
        NotebookFileError: If the session cannot take it; the session is unchanged.
    """
    contents = replace(contents, cell_ids={**file.ids, **contents.cell_ids})
    found = merge(_base(contents, file), contents.notebook, file.content, contents.shown)
    try:
        imports = imports_of(contents, found, file.record if becomes_its_own else None)
    except (InvalidCell, SessionError) as exc:
        raise NotebookFileError(f"{file.path} was not opened: {exc.message}", path=str(file.path)) from exc

    def session_ids(ids: Iterable[str]) -> tuple[CellId, ...]:
        return tuple(contents.cell_ids.get(one, CellId(one)) for one in ids)

    twins = set(found.conflicts.values())
    return imports, OpenedNotebook(
        path=file.path,
        upgraded_from=None if file.content.version == FORMAT else _dotted(file.content.version),
        added=session_ids(put.cell.id for put in found.puts if put.is_new and put.cell.id not in twins),
        changed=session_ids(put.cell.id for put in found.puts if not put.is_new),
        deleted=session_ids(found.deleted),
        kept=session_ids(found.kept),
        conflicts=dict(zip(session_ids(found.conflicts), session_ids(found.conflicts.values()), strict=True)),
        order_conflict=found.order_conflict,
        metadata_conflicts=tuple(found.metadata_conflicts),
    )


def _base(contents: Contents, file: ReadNotebook) -> FileRecord | None:
    """Return the file when it and the session were the same; a file that is known was not changed."""
    known = contents.record
    if known is None or known.path != file.record.path:
        return None
    return file.record if known.knows(file.record) else known


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


@dataclass(frozen=True, slots=True)
class Save:
    """How a session is saved.

    Attributes:
        record: What the session knows of its file from now on; what it replaces is forgotten when it is written.
        content: The file's new content; None if it means the same already.
        former: The file that is to be replaced; None if there is none.
    """

    record: FileRecord
    content: bytes | None = None
    former: os.stat_result | None = None


def prepare_save(contents: Contents, path: str | os.PathLike[str] | None) -> Save:
    """Decide how a session is saved.

    Args:
        contents: The session.
        path: The file; None for the one that the session has.

    Raises:
        NotebookFileError: If there is another file, or one that was changed since.
    """
    from runtimed.storage.notebook_files import read_file, real_path  # noqa: PLC0415  # brings SQLite

    known, notebook = contents.record, contents.notebook
    if path is None and known is None:
        raise NotebookFileError(
            f"The session {contents.session_id!r} has no file yet: give the path, save('analysis.ipynb')", path=None
        )
    real = real_path(known.path if path is None and known is not None else os.fspath(path or ""))
    file = read_file(real)
    if file is not None:
        former = read_notebook(file.text, real)
        record = record_of(str(real), notebook, is_normal=True)
        notebook = with_former_outputs(notebook, former)
        if former.version == FORMAT and (former.cells, former.metadata) == (notebook.cells, notebook.metadata):
            return Save(record)
        present = _check_is_known(real, former, contents)
        return Save(msgspec.structs.replace(record, replaces=present), write_notebook(notebook), file.status)
    return Save(record_of(str(real), notebook, is_normal=True), write_notebook(notebook))


def write_file(save: Save) -> None:
    """Write a session into its file.

    Raises:
        NotebookFileError: If it cannot be written, or was changed since the save was prepared.
    """
    from runtimed.storage.notebook_files import replace_file  # noqa: PLC0415  # brings SQLite

    if save.content is not None:
        replace_file(Path(save.record.path), save.content, save.former)


def _check_is_known(path: Path, former: NotebookFile, contents: Contents) -> FileRecord:
    """Check that a file has nothing that the session lacks; return the record of what it has."""
    known, name = contents.record, contents.session_id
    present = ReadNotebook.of(path, former).record
    why = None
    if former.version > FORMAT:
        why = f"it has the format {_dotted(former.version)}, which is newer than this version knows"
    elif known is None or known.path != str(path):
        why = f"it is not the file of the session {name!r}: save to another path, or open_notebook() takes its cells in"
    elif not known.knows(present):
        why = f"it was changed since the session {name!r} read or wrote it: open_notebook() takes the changes in"
    if why is not None:
        raise NotebookFileError(f"{path} was not overwritten: {why}", path=str(path))
    return present


def check_format(format: str) -> None:  # noqa: A002  # the name is the one of the option
    """Refuse a format that there is not."""
    check_choice("format", format, [*get_args(TextFormat), "automerge"])


def export(notebook: NotebookFile, format: TextFormat) -> bytes:  # noqa: A002  # as above
    """Return a notebook in another format.

    Raises:
        RuntimedError: If the package that writes the format is not installed.
    """
    content = write_notebook(notebook)
    if format == "ipynb":
        return content
    import nbformat  # noqa: PLC0415  # takes longer than all else that a client imports

    node = nbformat.reads(content, as_version=FORMAT[0])  # type: ignore[no-untyped-call]
    text: str
    if format == "html":
        exporter = _imported("nbconvert", "a session becomes HTML").HTMLExporter()
        text, _resources = exporter.from_notebook_node(node)
    else:
        script = "py:percent" if notebook.language == "python" else "auto:percent"
        jupytext = _imported("jupytext", "a session becomes a script or Markdown")
        text = jupytext.writes(node, fmt="md" if format == "md" else script)
    return text.encode("utf-8", "surrogatepass")


def _imported(package: str, what: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as exc:
        raise RuntimedError(
            f"{package} is not installed, with which {what}: {_NEEDED[package]}", package=package
        ) from exc
