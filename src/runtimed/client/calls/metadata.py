"""The operations that read and write the document's metadata."""

from __future__ import annotations

import json
from typing import Any, Final

from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow, ask
from runtimed.document.checks import check_metadata
from runtimed.errors import SessionError
from runtimed.protocol import document_operations as document_ops

__all__ = ["get_kernelspec", "get_metadata", "get_notebook_metadata", "set_kernelspec", "set_metadata"]

NOTEBOOK_METADATA: Final = "notebook_metadata"
"""Metadata key of the notebook-level metadata of an .ipynb file, as JSON."""


def set_metadata(notebook: Notebook, key: str, value: str) -> Flow[None]:
    """Set a value of the document's metadata: a text, typically JSON.

    Raises:
        SessionError: If key or value is no text, or larger than 1 KB and 10 MB.
    """
    check_metadata(key, value)
    yield from ask(document_ops.SetMetadata(notebook_id=notebook.id, key=key, value=value))


def get_metadata(notebook: Notebook, key: str) -> Flow[str | None]:
    """Return a value of the document's metadata; None if it is not set."""
    return (yield from ask(document_ops.GetMetadata(notebook_id=notebook.id, key=key))).value


def set_kernelspec(notebook: Notebook, name: str, display_name: str, language: str | None = None) -> Flow[None]:
    """Set the kernelspec of the notebook, as an .ipynb file does: in `notebook_metadata`.

    Other entries there stay, concurrent edits included.

    Raises:
        SessionError: If an argument is no text, or the present value is no JSON object.

    Source: nbformat 4, notebook metadata `kernelspec`.
    """
    for what, text in (
        ("name", name),
        ("display name", display_name),
        ("language", "" if language is None else language),
    ):
        if not isinstance(text, str):
            raise SessionError(f"The {what} of a kernelspec must be a str, not {type(text).__name__}")
    yield from ask(
        document_ops.SetKernelspec(notebook_id=notebook.id, name=name, display_name=display_name, language=language)
    )


def get_kernelspec(notebook: Notebook) -> Flow[dict[str, str] | None]:
    """Return the kernelspec in `notebook_metadata`; None if there is none."""
    spec = (yield from get_notebook_metadata(notebook)).get("kernelspec")
    return spec if isinstance(spec, dict) else None


def get_notebook_metadata(notebook: Notebook) -> Flow[dict[str, Any]]:
    """Return the notebook-level metadata of an .ipynb file; empty if there are none.

    Raises:
        SessionError: If the value is no JSON object.
    """
    text = yield from get_metadata(notebook, NOTEBOOK_METADATA)
    try:
        metadata = json.loads(text) if text is not None else {}
    except (ValueError, RecursionError) as exc:
        raise SessionError(f"The metadata value {NOTEBOOK_METADATA!r} is no JSON: {exc}") from exc
    if not isinstance(metadata, dict):
        raise SessionError(f"The metadata value {NOTEBOOK_METADATA!r} is no JSON object")
    return metadata
