"""Pickles Python values between processes of one user: with a size limit, and plain data only for results.

Used by kernels, from their launcher, and by clients. Python 3.9 or newer; needs the standard library only.
"""

from __future__ import annotations

import base64
import importlib
import io
import operator
import pickle
from types import BuiltinFunctionType, FunctionType
from typing import Any

__all__ = [
    "GET_REQUEST",
    "MAX_RESULT",
    "MAX_VALUE",
    "PUT_REQUEST",
    "RESULT_KEY",
    "TooLarge",
    "dump",
    "dump_plain",
    "install",
    "load_plain",
]

MAX_VALUE = 8 * 2**20
"""Largest pickle of a variable, in bytes: it travels in one message."""

MAX_RESULT = 2**18
"""Largest pickle of the value of a cell's last expression, in bytes."""

RESULT_KEY = "application/x-runtimed-value"
"""The key in an execute_result's metadata that holds the pickle. The host takes it out: it is never stored."""

GET_REQUEST = "runtimed_get_request"
PUT_REQUEST = "runtimed_put_request"

_USERNAME = "runtimed"
"""How the host of a kernel calls itself; other clients of the kernel get nothing that they do not know."""

_ATTEMPTS = 3
"""How often a value is tried that changes while it is pickled, since a cell runs."""

_PROTOCOL = 5

_PLAIN_MODULES = frozenset(
    {
        "collections",
        "datetime",
        "decimal",
        "fractions",
        "ipaddress",
        "numpy",
        "numpy.dtypes",
        "numpy.ma",
        "pandas",
        "pandas.api.typing",
        "pandas.arrays",
        "pathlib",
        "uuid",
    }
)
_PLAIN_PACKAGES = ("numpy.core.", "numpy._core.", "numpy.ma.", "pandas._libs.", "pandas.core.", "pathlib.")
_PLAIN_BUILTINS = frozenset(
    {
        "Ellipsis",
        "bytearray",
        "complex",
        "dict",
        "ellipsis",
        "frozenset",
        "int",
        "list",
        "range",
        "set",
        "slice",
        "str",
    }
)


_TABLES = frozenset({("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table")})

_CYTHON_FUNCTION = "cython_function_or_method"
"""The type of pandas' functions, in a module that is named after Cython's version."""


class TooLarge(Exception):  # what it says
    """A pickle exceeds its limit."""


class _Bounded(io.RawIOBase):
    """A buffer with a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise TooLarge
        self._parts.append(bytes(data))
        return size

    def value(self) -> bytes:
        return b"".join(self._parts)


class _PlainPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        """Called for all that is not of a built-in type that pickle knows."""
        kind = type(obj)
        is_named = isinstance(obj, (type, FunctionType, BuiltinFunctionType)) or kind.__name__ == _CYTHON_FUNCTION
        named = obj if is_named else kind
        if not _is_plain(named.__module__ or "", named.__qualname__):
            raise pickle.PicklingError("no plain data")
        return NotImplemented


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Refuse everything that plain data do not need: a pickle can name any function to be called."""
        if not _is_plain(module, name):
            raise pickle.UnpicklingError(f"{module}.{name} is no plain data")
        return super().find_class(module, name)


def _is_plain(module: str, name: str) -> bool:
    if module == "builtins":
        return name in _PLAIN_BUILTINS
    if "." in name:
        return False
    return (module in _PLAIN_MODULES and name[0] != "_") or module.startswith(_PLAIN_PACKAGES)


class _Call:
    """A call that unpickling makes. The pickle names the function and not this class."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


class _TablePickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        """Called for all that is not of a built-in type that pickle knows."""
        kind = type(obj)
        if (kind.__module__.partition(".")[0], kind.__name__) not in _TABLES:
            return NotImplemented
        try:
            return _reduced_table(obj)
        except Exception:  # noqa: BLE001  # pyarrow is missing or knows no such column: the table is pickled itself
            return NotImplemented


def _reduced_table(table: Any) -> Any:
    """Return what pickle calls to read a table from an Arrow IPC stream; NotImplemented for one that would change."""
    pyarrow = importlib.import_module("pyarrow")
    library = type(table).__module__.partition(".")[0]
    rebuild = operator.methodcaller("read_all")
    arrow = table
    if library == "pandas":
        if any(str(dtype) == "object" for dtype in (*table.dtypes, table.index.dtype)):
            return NotImplemented  # Arrow would make arrays of lists and tuples
        arrow, rebuild = pyarrow.Table.from_pandas(table), operator.methodcaller("to_pandas")
    elif library == "polars":
        arrow, rebuild = table.to_arrow(), importlib.import_module("polars").from_arrow
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, arrow.schema) as writer:
        writer.write_table(arrow)
    read = _Call(pyarrow.ipc.open_stream, sink.getvalue().to_pybytes())
    return rebuild, (read if library == "pyarrow" else _Call(operator.methodcaller("read_all"), read),)


def dump(value: Any, limit: int = MAX_VALUE, *, arrow: bool = False) -> bytes:
    """Pickle a value.

    Args:
        value: The value.
        limit: Largest pickle, in bytes.
        arrow: Whether tables of pandas, polars and pyarrow become Arrow IPC streams where pyarrow is installed, which
            other versions of these packages read, too. A reader needs pyarrow then.

    Raises:
        TooLarge: If the pickle has more bytes than the limit; little more than that was made of it.
        Exception: If it cannot be pickled: what it is depends on the value.
    """
    for attempt in range(_ATTEMPTS):
        file = _Bounded(limit)
        try:
            (_TablePickler if arrow else pickle.Pickler)(file, _PROTOCOL).dump(value)
        except RuntimeError as exc:  # "dictionary changed size during iteration"
            if "changed size" not in str(exc) or attempt == _ATTEMPTS - 1:
                raise
        else:
            break
    return file.value()


def dump_plain(value: Any) -> bytes | None:
    """Pickle a value if it is plain data (built-in types, dates, numbers, numpy's and pandas') and small; else None.

    Calls none of the user's code.
    """
    file = _Bounded(MAX_RESULT)
    try:
        _PlainPickler(file, _PROTOCOL).dump(value)
    except Exception:  # noqa: BLE001  # whatever it is, the value has its text
        return None
    return file.value()


def load_plain(data: bytes) -> Any:
    """Return the value of a pickle of plain data.

    Raises:
        Exception: If it is none, or needs something that is not installed here, or there in another version.
    """
    return _PlainUnpickler(io.BytesIO(data)).load()


# --- in the kernel ----------------------------------------------------------------------------------------------------


def install(kernel: Any) -> None:
    """Let a kernel answer to requests for variables, and send along the values of results."""
    namespace, session = kernel.shell.user_ns, kernel.session

    async def get(stream: Any, ident: Any, parent: Any) -> None:
        content = parent["content"]
        reply = _get(namespace, content["name"], arrow=bool(content.get("arrow")))
        session.send(stream, "runtimed_get_reply", reply, parent, ident)

    async def put(stream: Any, ident: Any, parent: Any) -> None:
        content = parent["content"]
        session.send(stream, "runtimed_put_reply", _put(namespace, content["name"], content["value"]), parent, ident)

    kernel.shell_handlers[GET_REQUEST] = get
    kernel.shell_handlers[PUT_REQUEST] = put
    hook = kernel.shell.displayhook
    compute = hook.compute_format_data

    def compute_with_value(result: Any) -> Any:
        data, metadata = compute(result)
        if data and (getattr(hook, "parent_header", None) or {}).get("username") == _USERNAME:
            value = dump_plain(result)
            if value is not None:
                metadata = {**metadata, RESULT_KEY: base64.b64encode(value).decode("ascii")}
        return data, metadata

    hook.compute_format_data = compute_with_value


def _get(namespace: Any, name: str, *, arrow: bool) -> dict[str, Any]:
    if name not in namespace:
        return {"status": "error", "error": "unknown"}
    try:
        value = dump(namespace[name], arrow=arrow)
    except TooLarge:
        return {"status": "error", "error": "too large"}
    except Exception as exc:  # noqa: BLE001  # it says what it is
        return {"status": "error", "error": "refused", "reason": f"{type(exc).__name__}: {exc}"}
    return {"status": "ok", "value": base64.b64encode(value).decode("ascii")}


def _put(namespace: Any, name: str, value: str) -> dict[str, Any]:
    try:
        namespace[name] = pickle.loads(base64.b64decode(value))  # noqa: S301  # of the same user
    except Exception as exc:  # noqa: BLE001  # it says what it is
        return {"status": "error", "error": "refused", "reason": f"{type(exc).__name__}: {exc}"}
    return {"status": "ok"}
