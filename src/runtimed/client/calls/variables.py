"""The operations on Python values: variables of the kernel, and the value of a cell's last expression."""

from __future__ import annotations

import keyword
import pickle
import reprlib
import unicodedata
from typing import Any

from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow, ask
from runtimed.display import readable_size
from runtimed.errors import RuntimedError, ValueRefused, VariableNotFound
from runtimed.kernel_launcher.values import MAX_VALUE, TooLarge, dump
from runtimed.protocol import kernel_operations as kernel_ops

__all__ = ["get", "put", "result_value"]


def get(notebook: Notebook, name: str) -> Flow[Any]:
    """Return a copy of a variable of the kernel, pickled there and unpickled here; at most 8 MiB.

    It is no execution: history, counters and other clients' work stay unchanged. While a cell runs, the value is that
    of the moment; a kernel with an ipykernel below 7 answers once the cell has ended, if that takes no longer than ten
    seconds. Unpickling executes code of the value, so use it with kernels that you trust like your own code.

    Args:
        name: Name of the variable.

    Raises:
        VariableNotFound: If the kernel has no such variable. It is a NameError, too.
        ValueRefused: If the value is too large, or cannot be pickled there or unpickled here. It is a ValueError, too.
        NoKernel: If no kernel runs.
        RuntimedError: If it is no Python kernel, or does not answer in time.
    """
    name = _variable(name)
    reply = yield from ask(kernel_ops.GetVariable(notebook_id=notebook.id, name=name))
    try:
        return pickle.loads(reply.value)  # noqa: S301  # of a kernel of the same user, and asked for
    except Exception as exc:
        raise ValueRefused(
            f"The variable {name!r} cannot be unpickled here: {type(exc).__name__}: {exc}", variable=name
        ) from exc


def put(notebook: Notebook, name: str, value: Any) -> Flow[None]:
    """Set a variable of the kernel to a copy of a value, pickled here and unpickled there; see `get`.

    Args:
        name: Name of the variable.
        value: A picklable value, at most 8 MiB. Its classes must be importable in the kernel.

    Raises:
        ValueRefused: If the value is too large, or cannot be pickled here or unpickled there.
        NoKernel: If no kernel runs.
        RuntimedError: If it is no Python kernel, or does not answer in time.
    """
    name = _variable(name)
    try:
        pickled = dump(value)
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
    yield from ask(kernel_ops.PutVariable(notebook_id=notebook.id, name=name, pickled=pickled))


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
