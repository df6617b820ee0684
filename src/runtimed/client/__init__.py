"""Clients of the daemon: what is named here is public, to other packages of runtimed and to frontends."""

from runtimed.client.async_browser_session import AsyncBrowserSession
from runtimed.client.async_client import AsyncClient
from runtimed.client.async_execution import AsyncExecution
from runtimed.client.async_session import AsyncSession
from runtimed.client.browser_options import as_options
from runtimed.client.browser_session import BrowserSession
from runtimed.client.calls import NOTEBOOK_METADATA, Past, working_folder
from runtimed.client.client import Client
from runtimed.client.daemon_client import DaemonClient
from runtimed.client.execution import Execution
from runtimed.client.files import ExportFormat
from runtimed.client.questions import still_asks
from runtimed.client.session import Session

__all__ = [
    "NOTEBOOK_METADATA",
    "AsyncBrowserSession",
    "AsyncClient",
    "AsyncExecution",
    "AsyncSession",
    "BrowserSession",
    "Client",
    "DaemonClient",
    "Execution",
    "ExportFormat",
    "Past",
    "Session",
    "as_options",
    "still_asks",
    "working_folder",
]
