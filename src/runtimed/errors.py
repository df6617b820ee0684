"""The errors of runtimed. Each says what happened, to which id, and what to do; its data are attributes."""

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
    "ExecutionTimeout",
    "InvalidAction",
    "InvalidArgument",
    "InvalidCell",
    "InvalidCookieFile",
    "KernelDied",
    "KernelStartFailed",
    "NoKernel",
    "NotConnected",
    "ProtocolError",
    "RuntimedError",
    "SessionClosed",
    "SessionError",
    "SessionNotFound",
    "StaleElement",
    "StorageError",
    "ValueRefused",
    "VariableNotFound",
    "error_from_wire",
    "wire_name",
]


class RuntimedError(Exception):
    """Base of every error that runtimed raises.

    Keyword arguments become attributes, and travel from the daemon to the client.
    """

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def __str__(self) -> str:
        # A traceback prints it as it is; sentences name ids and labels of others. `message` has them unchanged.
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
    """The connection to the daemon broke and could not be restored in time."""


class DaemonUnavailable(RuntimedError):
    """No daemon answers, and none could be started."""


class ProtocolError(RuntimedError):
    """The other side violated the protocol, or speaks another version of it."""


class InvalidArgument(RuntimedError, ValueError, TypeError):
    """An argument of a call has a wrong type, is out of bounds or no valid Unicode (attribute `argument`: its name)."""


class SessionError(RuntimedError):
    """A session, or the id that names it, is invalid for this operation."""


class SessionNotFound(SessionError):
    """No session has this id."""


class SessionClosed(SessionError):
    """The session ended while it was being used."""


class CellNotFound(RuntimedError):
    """The document has no cell of this id (attribute `cell_id`)."""


class InvalidCell(RuntimedError):
    """A cell's source, type or index cannot be accepted."""


class ExecutionTimeout(RuntimedError, TimeoutError):
    """The wait timed out; the execution goes on (attributes `execution_id`, `timeout_secs`)."""


class ExecutionCancelled(RuntimedError):
    """The execution was taken from the queue before it began (attribute `execution_id`)."""


class ExecutionFailed(RuntimedError):
    """The code raised, and `raise_for_error` was called on its result (attributes `ename`, `evalue`, `traceback`)."""


class NoKernel(RuntimedError):
    """The operation needs a running kernel, and none runs."""


class VariableNotFound(RuntimedError, NameError):
    """The kernel has no variable of this name (attribute `variable`)."""


class ValueRefused(RuntimedError, ValueError):
    """A value is too large, or cannot be pickled (attribute `variable`)."""


class KernelDied(RuntimedError):
    """The kernel ended unexpectedly (attributes `exit_code`, `signal`, `stderr`)."""


class KernelStartFailed(RuntimedError):
    """A kernel could not be started (attributes `exit_code`, `signal`, `stderr` where known)."""


class EnvironmentFailed(RuntimedError):
    """The requested interpreter or packages are not available."""


class BrowserError(RuntimedError):
    """A browser session, or a request to it, failed."""


class BrowserUnavailable(BrowserError):
    """No Chromium is available, or it ended before it could be used (attributes `exit_code`, `signal`, `stderr`)."""


class ActionFailed(BrowserError):
    """The page refused an action (attributes `result`; `error`, the reason in a word)."""


class StaleElement(ActionFailed):
    """The element that a ref names has gone, or has another role or name (attributes `ref`, and `nearest`).

    `nearest` is the element's present ref, or that of its replacement; None if that is in doubt.
    """


class InvalidAction(BrowserError, TypeError):
    """There is no such action, or a field of it is unknown, missing or wrong (attribute `nearest`: the valid name)."""


class InvalidCookieFile(BrowserError):
    """A cookie file cannot be used, and is left as it is (attributes `path`; `cookie` or `line`, the place from 1)."""


class StorageError(RuntimedError):
    """Stored data cannot be read or written."""


_BY_NAME: dict[str, type[RuntimedError]] = {
    cls.__name__: cls for cls in list(globals().values()) if isinstance(cls, type) and issubclass(cls, RuntimedError)
}


def _rebuild(cls: type[RuntimedError], message: str, data: Mapping[str, Any]) -> RuntimedError:
    return cls(message, **data)


def wire_name(error: RuntimedError) -> str:
    """Return the name of an error on the wire: that of its class, or of a base that the other side knows."""
    return next(cls.__name__ for cls in type(error).__mro__ if _BY_NAME.get(cls.__name__) is cls)


def error_from_wire(name: str, message: str, data: Mapping[str, Any]) -> RuntimedError:
    """Rebuild an error that the other side of a connection reported; an unknown name gives a RuntimedError."""
    return _BY_NAME.get(name, RuntimedError)(message, **data)
