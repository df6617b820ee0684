"""A Jupyter Server extension: gives an opened notebook the outputs of its session, and tells JupyterLab about sessions.

It works under the server's own login, and starts no daemon.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import tornado.web
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from nbformat import NotebookNode, from_dict
from traitlets import TraitError

from runtimed.client import AsyncClient, Client, Session
from runtimed.errors import DaemonUnavailable, RuntimedError, SessionNotFound
from runtimed.ids import SessionId
from runtimed.jupyter.proxy_kernel.naming import PROGRAM, choose, given_in
from runtimed.notebook_file.outputs import file_outputs
from runtimed.notebook_names import notebook_path

__all__ = ["SessionHandler", "fill_outputs"]

_LABEL: Final = "Jupyter Server"


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "runtimed.jupyter.server_extension"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Serve `runtimed/sessions/ID`, and fill opened notebooks. Source: Jupyter Server, "Server extensions"."""
    contents = app.contents_manager
    find = functools.partial(_session_in, app.kernel_spec_manager)
    contents.get = _filling(contents.get, Path(app.root_dir), find, app.log)
    base_url = app.web_app.settings["base_url"]
    app.web_app.add_handlers(".*$", [(url_path_join(base_url, r"/runtimed/sessions/(.+)"), SessionHandler)])


def _session_in(specs: Any, name: object, path: Path) -> SessionId | None:
    """Return the session that a kernelspec's kernel joins for a notebook; None if it is no proxy kernel's.

    Args:
        specs: The server's manager of kernelspecs. With a gateway, kernels and their sessions are elsewhere.
        name: The kernelspec's name in the notebook, which may be anything.
        path: The notebook's real path.

    Raises:
        RuntimedError: If it names an invalid id.
    """
    if not isinstance(name, str) or inspect.iscoroutinefunction(specs.get_kernel_spec):
        return None
    try:
        spec = specs.get_kernel_spec(name)
    except (NoSuchKernel, OSError, TraitError, TypeError, ValueError):  # it is not there, or no kernelspec
        return None
    if PROGRAM not in spec.argv:
        return None
    return choose(given_in(spec.argv), {**os.environ, **spec.env, "JPY_SESSION_NAME": str(path)}, ("", "")).session_id


def _filling(
    get: Callable[..., Any], root: Path, find: Callable[[object, Path], SessionId | None], log: Any
) -> Callable[..., Any]:
    """Return a contents manager's `get` whose notebooks have the outputs of their sessions, which `find` returns."""

    def fill(model: dict[str, Any]) -> dict[str, Any]:
        notebook: Any = model["content"] if model["type"] == "notebook" else None
        spec = None if notebook is None else notebook.metadata.get("kernelspec")
        path = notebook_path(str(root / model["path"].lstrip("/")))
        # A file may have anything in place of a kernelspec, and is opened all the same.
        if path is not None and isinstance(spec, dict):
            try:
                session_id = find(spec.get("name"), path)
                if session_id is not None:
                    fill_outputs(notebook, session_id)
            except RuntimedError as exc:  # the file's own outputs are better than none
                log.warning("runtimed: %s has the outputs of its file, not those of its session: %s", path, exc)
        return model

    if inspect.iscoroutinefunction(get):

        @functools.wraps(get)
        async def get_filled(*arguments: Any, **named: Any) -> dict[str, Any]:
            return await asyncio.to_thread(fill, await get(*arguments, **named))

    else:

        @functools.wraps(get)
        def get_filled(*arguments: Any, **named: Any) -> dict[str, Any]:
            return fill(get(*arguments, **named))

    return get_filled


def fill_outputs(notebook: NotebookNode, session_id: SessionId) -> None:
    """Give the code cells of a notebook the outputs and the execution counts that they have in its session.

    A cell that never ran there keeps what the file has.

    Args:
        notebook: The content of the file, nbformat 4.
        session_id: Its session.

    Raises:
        RuntimedError: If the session cannot be read.
    """
    client = Client(label=_LABEL)
    if not client.is_running() or session_id not in client.sessions.find(session_id, kind="kernel"):
        return
    with Session(session_id, label=_LABEL) as session:
        ran = {cell.id: cell for cell in session.iter_cells() if cell.execution_id is not None}
    for cell in notebook.cells:
        known = ran.get(cell.get("id"))
        if known is not None and cell.cell_type == "code":
            cell.outputs = from_dict(list(file_outputs(known.outputs)))  # type: ignore[no-untyped-call]  # nbformat has no types
            cell.execution_count = known.execution_count


class SessionHandler(APIHandler):
    """A session, as the status bar shows it."""

    auth_resource = "kernels"

    @tornado.web.authenticated
    @authorized
    async def get(self, session_id: str) -> None:
        """Answer with the session's status, its number of peers, and its running and queued executions, in order.

        404: no daemon runs, or it knows no kernel session of this id.
        """
        client = AsyncClient(label=_LABEL)
        if not await client.is_running():
            raise tornado.web.HTTPError(404, "no daemon of runtimed runs here")
        try:
            status = await client.sessions.get(session_id)
            queue = await client.sessions.find_executions(session_id)
        except (SessionNotFound, DaemonUnavailable) as exc:
            raise tornado.web.HTTPError(404, str(exc)) from exc
        self.finish(
            {
                "session_id": status.session_id,
                "status": status.status,
                "kernel_status": status.kernel_status,
                "peers": status.peers,
                "queue": [
                    {"cell_id": found.cell_id, "execution_id": found.execution_id, "status": found.status}
                    for found in queue
                ],
            }
        )
