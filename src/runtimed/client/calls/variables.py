"""The operations on Python values: variables of the kernel, and the value of a cell's last expression."""

from __future__ import annotations

import importlib.util
import keyword
import pickle
import reprlib
import unicodedata
from collections.abc import Callable
from typing import Any

import msgspec

from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow, ask
from runtimed.client.given import check_callable
from runtimed.display import readable_size
from runtimed.errors import RuntimedError, ValueRefused, VariableNotFound
from runtimed.kernel_launcher.values import MAX_VALUE, TooLarge, dump
from runtimed.protocol import kernel_operations as kernel_ops

__all__ = ["get", "put", "result_value"]


def get(
    notebook: Notebook, name: str, *, arrow: bool = False, on_size: Callable[[int], object] | None = None
) -> Flow[Any]:
    """Return a copy of a variable of the kernel, pickled there and unpickled here; at most 8 MiB.

    It is no execution: history, counters and other clients' work stay unchanged. While a cell runs, the value is that
    of the moment; a kernel with an ipykernel below 7 answers once the cell has ended, if that takes no longer than ten
    seconds. Unpickling executes code of the value, so use it with kernels that you trust like your own code.

    Args:
        name: Name of the variable.
        arrow: Whether tables of pandas, polars and pyarrow travel as Arrow IPC streams, which other versions of these
            packages read, too. Where pyarrow is missing on either side, and where a pandas table has columns of Python
            objects, tables are pickled like anything else.
        on_size: Called with the number of bytes that were handed over.

    Raises:
        VariableNotFound: If the kernel has no such variable. It is a NameError, too.
        ValueRefused: If the value is too large, or cannot be pickled there or unpickled here. It is a ValueError, too.
        NoKernel: If no kernel runs.
        RuntimedError: If it is no Python kernel, or does not answer in time.
    """
    name = _variable(name)
    check_callable("on_size", on_size)
    arrow = arrow and importlib.util.find_spec("pyarrow") is not None
    reply = yield from ask(kernel_ops.GetVariable(notebook_id=notebook.id, name=name, arrow=arrow))
    if on_size is not None:
        on_size(len(reply.value))
    try:
        return pickle.loads(reply.value)  # noqa: S301  # of a kernel of the same user, and asked for
    except Exception as exc:
        raise ValueRefused(
            f"The variable {name!r} cannot be unpickled here: {type(exc).__name__}: {exc}", variable=name
        ) from exc


def put(
    notebook: Notebook,
    name: str,
    value: Any,
    *,
    arrow: bool = False,
    on_size: Callable[[int], object] | None = None,
) -> Flow[None]:
    """Set a variable of the kernel to a copy of a value, pickled here and unpickled there; see `get`.

    Args:
        name: Name of the variable.
        value: A picklable value, at most 8 MiB. Its classes must be importable in the kernel.
        arrow: As in `get`.
        on_size: As in `get`.

    Raises:
        ValueRefused: If the value is too large, or cannot be pickled here or unpickled there.
        NoKernel: If no kernel runs.
        RuntimedError: If it is no Python kernel, or does not answer in time.
    """
    name = _variable(name)
    check_callable("on_size", on_size)
    pickled = _pickled(name, value, arrow=arrow)
    request = kernel_ops.PutVariable(notebook_id=notebook.id, name=name, pickled=pickled)
    try:
        yield from ask(request)
    except ValueRefused:
        plain = _pickled(name, value, arrow=False)
        if not arrow or plain == pickled:
            raise
        # The kernel cannot read Arrow.
        pickled = plain
        yield from ask(msgspec.structs.replace(request, pickled=plain))
    if on_size is not None:
        on_size(len(pickled))


def _pickled(name: str, value: Any, *, arrow: bool) -> bytes:
    try:
        return dump(value, arrow=arrow)
    except TooLarge:
        raise ValueRefused(
            f"The value for {name!r} takes more than {readable_size(MAX_VALUE)} when it is pickled; write it into a "
            "file for the kernel",
            variable=name,
        ) from None
    except Exception as exc:
        raise ValueRefused(
            f"The value for {name!r} cannot be pickled: {type(exc).__name__}: {exc}", variable=name
        ) from exc


def result_value(notebook: Notebook, execution_id: str) -> Flow[bytes | None]:
    """Return the pickled value of a result; None if only its text is available."""
    try:
        reply = yield from ask(kernel_ops.GetResultValue(notebook_id=notebook.id, execution_id=execution_id))
    except RuntimedError:
        return None  # the kernel has ended meanwhile
    return reply.value


def _variable(name: object) -> str:
    """Return the variable that code with this name means.

    Source: The Python Language Reference, identifiers: the parser converts them to NFKC.
    """
    meant = unicodedata.normalize("NFKC", name) if isinstance(name, str) else ""
    if not meant.isidentifier() or keyword.iskeyword(meant):
        raise VariableNotFound(
            f"The name of a variable is an identifier of Python, not {reprlib.repr(name)}", variable=name
        )
    return meant
