"""The exceptions of runtimed. Each says what happened, to which id, and what to do, and has its data as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtimed.texts import printable

__all__ = [
    "ActionFailed",
    "BrowserError",
    "BrowserUnavailable",
    "CellNotFound",
    "ConnectionLost",
    "DaemonUnavailable",
    "EnvironmentFailed",
    "ExecutionCancelled",
    "ExecutionFailed",
    "ExecutionNotFound",
    "ExecutionTimeout",
    "InvalidAction",
    "InvalidArgument",
    "InvalidCell",
    "InvalidCookieFile",
    "KernelDied",
    "KernelStartFailed",
    "NoKernel",
    "NotConnected",
    "NotebookFileError",
    "ProtocolError",
    "RuntimedError",
    "SessionClosed",
    "SessionError",
    "SessionNotFound",
    "StaleElement",
    "StorageError",
    "ValueRefused",
    "VariableNotFound",
    "VersionNotFound",
    "error_from_wire",
    "wire_name",
]


class RuntimedError(Exception):
    """Base class of all errors of runtimed.

    Keyword arguments become attributes, which are sent from the daemon to the client.
    """

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def __str__(self) -> str:
        # Tracebacks print it unescaped, with ids and labels that other clients chose. `message` is unchanged.
        return printable(self.message, "\n\t")

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.data))


class NotConnected(RuntimedError):
    """An operation needs `connect()` first."""


class ConnectionLost(RuntimedError):
    """The connection to the daemon broke, and could not be restored in time."""


class DaemonUnavailable(RuntimedError):
    """No daemon answers, and none could be started."""


class ProtocolError(RuntimedError):
    """The other side violated the protocol, or speaks another version of it."""


class InvalidArgument(RuntimedError, ValueError, TypeError):
    """An argument has a wrong type, is out of bounds, is no valid Unicode or names something else (see `argument`).

    It is also raised if all arguments of a call together are too large; then there is no such attribute.
    """


class SessionError(RuntimedError):
    """A session or its id is invalid for this operation."""


class SessionNotFound(SessionError):
    """No session has this id."""


class SessionClosed(SessionError):
    """The session ended while it was being used."""


class CellNotFound(RuntimedError):
    """The document has no cell of this id (attribute `cell_id`)."""


class InvalidCell(RuntimedError):
    """A cell's id, source, type, index or metadata is invalid."""


class ExecutionTimeout(RuntimedError, TimeoutError):
    """The wait timed out; the execution goes on (attributes `execution_id`, `timeout_secs`)."""


class ExecutionCancelled(RuntimedError):
    """The execution was cancelled before it started (attribute `execution_id`)."""


class ExecutionNotFound(RuntimedError):
    """The session has no execution of this id, or no longer (attribute `execution_id`)."""


class VersionNotFound(RuntimedError):
    """The notebook's history has no such version, or no longer (attributes `version`, `oldest`, `newest`)."""


class ExecutionFailed(RuntimedError):
    """The executed code raised an exception; see `raise_for_error` (attributes `ename`, `evalue`, `traceback`)."""


class NoKernel(RuntimedError):
    """The operation needs a kernel, but none is running."""


class VariableNotFound(RuntimedError, NameError):
    """The kernel has no variable of this name (attribute `variable`)."""


class ValueRefused(RuntimedError, ValueError):
    """A value is too large, or cannot be pickled (attribute `variable`)."""


class KernelDied(RuntimedError):
    """The kernel ended unexpectedly (attributes `exit_code`, `signal`, `stderr`)."""


class KernelStartFailed(RuntimedError):
    """A kernel could not be started (attributes `exit_code`, `signal`, `stderr`, where known)."""


class EnvironmentFailed(RuntimedError):
    """The requested interpreter or packages are not available."""


class BrowserError(RuntimedError):
    """An operation on a browser session failed."""


class BrowserUnavailable(BrowserError):
    """No Chromium was found, or it ended before it could be used (attributes `exit_code`, `signal`, `stderr`)."""


class ActionFailed(BrowserError):
    """An action failed on the page (attributes `result`, and `error`: the reason in a word)."""


class StaleElement(ActionFailed):
    """The element of a ref is gone, or has another role or name (attributes `ref`, `nearest`).

    `nearest` is the present ref of the element or of its replacement; None if that is uncertain.
    """


class InvalidAction(BrowserError, TypeError):
    """An action or a field of it is unknown, missing or invalid (attribute `nearest`: a similar valid name)."""


class InvalidCookieFile(BrowserError):
    """A cookie file is invalid, and was not changed (attributes `path`, and `cookie` or `line`: the number, from 1)."""


class NotebookFileError(RuntimedError):
    """A notebook file cannot be read or written; neither it nor the document was changed (attribute `path`)."""


class StorageError(RuntimedError):
    """Stored data cannot be read or written."""


_BY_NAME: dict[str, type[RuntimedError]] = {
    cls.__name__: cls for cls in list(globals().values()) if isinstance(cls, type) and issubclass(cls, RuntimedError)
}


def _rebuild(cls: type[RuntimedError], message: str, data: Mapping[str, Any]) -> RuntimedError:
    return cls(message, **data)


def wire_name(error: RuntimedError) -> str:
    """Return an error's name on the wire: that of its class, or of the nearest base class in this module."""
    return next(cls.__name__ for cls in type(error).__mro__ if _BY_NAME.get(cls.__name__) is cls)


def error_from_wire(name: str, message: str, data: Mapping[str, Any]) -> RuntimedError:
    """Rebuild an error from the wire; an unknown name gives a RuntimedError."""
    return _BY_NAME.get(name, RuntimedError)(message, **data)
