"""Live sessions that notebooks, scripts and agents share, and that outlive them all."""

import importlib
from typing import TYPE_CHECKING, Any, Final

from runtimed.version import __version__

if TYPE_CHECKING:
    from runtimed.actions import Secret
    from runtimed.client import (
        AsyncBrowserSession,
        AsyncClient,
        AsyncExecution,
        AsyncSession,
        BrowserSession,
        Client,
        DaemonClient,
        Execution,
        Session,
    )
    from runtimed.errors import (
        ActionFailed,
        BrowserError,
        BrowserUnavailable,
        CellNotFound,
        ConnectionLost,
        DaemonUnavailable,
        EnvironmentFailed,
        ExecutionCancelled,
        ExecutionFailed,
        ExecutionNotFound,
        ExecutionTimeout,
        InvalidAction,
        InvalidArgument,
        InvalidCell,
        InvalidCookieFile,
        KernelDied,
        KernelStartFailed,
        NoKernel,
        NotConnected,
        NotebookFileError,
        ProtocolError,
        RuntimedError,
        SessionClosed,
        SessionError,
        SessionNotFound,
        StaleElement,
        StorageError,
        ValueRefused,
        VariableNotFound,
        VersionNotFound,
    )
    from runtimed.models import (
        Attribution,
        AuditEntry,
        BlamedLine,
        Cell,
        CommMessage,
        DaemonStatus,
        ExecutionEvent,
        ExecutionResult,
        ExecutionSummary,
        Image,
        NotebookEdit,
        NotebookVersion,
        OpenedNotebook,
        Output,
        OutputPage,
        QueuedExecution,
        SessionStatus,
        SyncEnvironmentResult,
    )
    from runtimed.pages import (
        ActionResult,
        ConsoleMessage,
        Dialog,
        DownloadedFile,
        Element,
        LogEntry,
        Observation,
        PageRequest,
        Tab,
    )
    from runtimed.settings import default_socket_path

__all__ = [
    "ActionFailed",
    "ActionResult",
    "AsyncBrowserSession",
    "AsyncClient",
    "AsyncExecution",
    "AsyncSession",
    "Attribution",
    "AuditEntry",
    "BlamedLine",
    "BrowserError",
    "BrowserSession",
    "BrowserUnavailable",
    "Cell",
    "CellNotFound",
    "Client",
    "CommMessage",
    "ConnectionLost",
    "ConsoleMessage",
    "DaemonClient",
    "DaemonStatus",
    "DaemonUnavailable",
    "Dialog",
    "DownloadedFile",
    "Element",
    "EnvironmentFailed",
    "Execution",
    "ExecutionCancelled",
    "ExecutionEvent",
    "ExecutionFailed",
    "ExecutionNotFound",
    "ExecutionResult",
    "ExecutionSummary",
    "ExecutionTimeout",
    "Image",
    "InvalidAction",
    "InvalidArgument",
    "InvalidCell",
    "InvalidCookieFile",
    "KernelDied",
    "KernelStartFailed",
    "LogEntry",
    "NoKernel",
    "NotConnected",
    "NotebookEdit",
    "NotebookFileError",
    "NotebookVersion",
    "Observation",
    "OpenedNotebook",
    "Output",
    "OutputPage",
    "PageRequest",
    "ProtocolError",
    "QueuedExecution",
    "RuntimedError",
    "Secret",
    "Session",
    "SessionClosed",
    "SessionError",
    "SessionNotFound",
    "SessionStatus",
    "StaleElement",
    "StorageError",
    "SyncEnvironmentResult",
    "Tab",
    "ValueRefused",
    "VariableNotFound",
    "VersionNotFound",
    "__version__",
    "default_socket_path",
    "load_ipython_extension",
    "unload_ipython_extension",
]

_HOMES: Final = ("errors", "models", "pages", "settings", "actions", "client")
"""Modules that have what is public; a later one imports more."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name when it is asked for: daemons and hosts start without clients."""
        if name in __all__:
            for home in _HOMES:
                module = importlib.import_module(f"{__name__}.{home}")
                if name in module.__all__:
                    return globals().setdefault(name, getattr(module, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what is public: modules of this package are imported, and are nobody's concern."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))})


def load_ipython_extension(shell: Any) -> None:
    """Give an IPython shell the magics: `%load_ext runtimed`."""
    from runtimed.ipython.extension import load  # noqa: PLC0415  # scripts need no IPython

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics away again: `%unload_ext runtimed`."""
    from runtimed.ipython.extension import unload  # noqa: PLC0415  # scripts need no IPython

    unload(shell)
