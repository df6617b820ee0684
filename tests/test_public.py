"""The public surface: what is promised is there, the same on both faces, and documented."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runtimed
from runtimed import (
    AsyncBrowserSession,
    AsyncClient,
    AsyncExecution,
    AsyncSession,
    BrowserSession,
    Client,
    Execution,
    Session,
)
from runtimed.client import calls

MODULES = [
    module.name
    for module in pkgutil.walk_packages(runtimed.__path__, "runtimed.")
    if not module.ispkg and not module.name.endswith("__main__") and ".kernel_launcher." not in module.name
]

SESSION_MEMBERS = [
    "notebook_id",
    "client_id",
    "is_connected",
    "kernel_started",
    "env_source",
    "connect",
    "start_kernel",
    "trust_environment",
    "restart_kernel",
    "shutdown_kernel",
    "interrupt",
    "create_cell",
    "set_source",
    "append_source",
    "get_cell",
    "get_cells",
    "iter_cells",
    "delete_cell",
    "move_cell",
    "clear_outputs",
    "get_cell_ids",
    "get_cell_source",
    "get_cell_type",
    "get_cell_outputs",
    "get_cell_execution_count",
    "get_cell_position",
    "get_cell_metadata",
    "set_cell_metadata",
    "delete_cell_metadata",
    "set_cell_type",
    "history",
    "get_version",
    "blame",
    "restore",
    "execute_cell",
    "run",
    "queue_cell",
    "submit",
    "execution",
    "get_queue",
    "wait",
    "read_outputs",
    "cancel",
    "stream_execute",
    "subscribe",
    "raw_events",
    "set_metadata",
    "get_metadata",
    "open_notebook",
    "import_notebook",
    "save",
    "export",
    "set_kernelspec",
    "get_kernelspec",
    "get_uv_dependencies",
    "add_uv_dependency",
    "add_uv_dependencies",
    "remove_uv_dependency",
    "get_conda_dependencies",
    "add_conda_dependency",
    "add_conda_dependencies",
    "remove_conda_dependency",
    "sync_environment",
    "complete",
    "inspect",
    "ask_kernel",
    "send_comm",
    "get",
    "put",
    "status",
    "stop",
    "close",
]

EXECUTION_MEMBERS = [
    "events",
    "raw_events",
    "outputs",
    "answer",
    "interrupt",
    "cancel",
    "wait",
    "past",
    "follow",
    "public",
]

BROWSER_MEMBERS = [
    "session_id",
    "is_new",
    "client_id",
    "start",
    "stop",
    "close",
    "status",
    "async_page",
    "cdp_url",
    "viewer_url",
    "open_viewer",
    "observe",
    "execute",
    "scrape",
    "screenshot",
    "get_cookies",
    "set_cookies",
    "save_profile",
    "read_actions",
    "read_runs",
    "console",
    "requests",
    "downloads",
]

ERRORS = {
    "RuntimedError": Exception,
    "NotConnected": runtimed.RuntimedError,
    "ConnectionLost": runtimed.RuntimedError,
    "DaemonUnavailable": runtimed.RuntimedError,
    "ProtocolError": runtimed.RuntimedError,
    "SessionError": runtimed.RuntimedError,
    "SessionNotFound": runtimed.SessionError,
    "SessionClosed": runtimed.SessionError,
    "CellNotFound": runtimed.RuntimedError,
    "InvalidArgument": runtimed.RuntimedError,
    "InvalidCell": runtimed.RuntimedError,
    "ExecutionTimeout": runtimed.RuntimedError,
    "ExecutionCancelled": runtimed.RuntimedError,
    "ExecutionFailed": runtimed.RuntimedError,
    "ExecutionNotFound": runtimed.RuntimedError,
    "VersionNotFound": runtimed.RuntimedError,
    "NoKernel": runtimed.RuntimedError,
    "KernelDied": runtimed.RuntimedError,
    "KernelStartFailed": runtimed.RuntimedError,
    "EnvironmentFailed": runtimed.RuntimedError,
    "StorageError": runtimed.RuntimedError,
    "ValueRefused": runtimed.RuntimedError,
    "NotebookFileError": runtimed.RuntimedError,
    "VariableNotFound": runtimed.RuntimedError,
    "BrowserError": runtimed.RuntimedError,
    "BrowserUnavailable": runtimed.BrowserError,
    "StaleElement": runtimed.ActionFailed,
    "ActionFailed": runtimed.BrowserError,
    "InvalidAction": runtimed.BrowserError,
    "InvalidCookieFile": runtimed.BrowserError,
}


@pytest.mark.parametrize("name", ["runtimed", *MODULES])
def test_every_module_exports_what_it_names_and_defines(name):
    module = importlib.import_module(name)

    assert sorted(module.__all__) == sorted(set(module.__all__))
    for exported in module.__all__:
        assert hasattr(module, exported), f"{name} names {exported}"
    public = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == name
    }
    assert public <= set(module.__all__), f"{name} does not name {public - set(module.__all__)}"


def test_the_errors_form_the_promised_tree():
    for name, base in ERRORS.items():
        error = getattr(runtimed, name)
        assert issubclass(error, base)
    assert issubclass(runtimed.ExecutionTimeout, TimeoutError)
    assert issubclass(runtimed.InvalidAction, TypeError)


@pytest.mark.parametrize("name", SESSION_MEMBERS)
def test_both_faces_have_every_member_with_the_same_parameters_and_docs(name):
    sync, coroutine = inspect.getattr_static(Session, name), inspect.getattr_static(AsyncSession, name)
    assert inspect.getdoc(sync) == inspect.getdoc(coroutine)
    if isinstance(sync, property):
        assert name in ("notebook_id", "client_id") or inspect.iscoroutinefunction(coroutine)
        return
    first, second = inspect.signature(sync), inspect.signature(coroutine)
    assert list(first.parameters.values()) == list(second.parameters.values())
    if name not in ("iter_cells", "history", "stream_execute", "subscribe", "raw_events"):
        assert inspect.iscoroutinefunction(coroutine)
        assert first.return_annotation == second.return_annotation.replace("AsyncExecution", "Execution")


def test_the_faces_have_no_other_members():
    for face in (Session, AsyncSession):
        assert {name for name in dir(face) if not name.startswith("_")} == set(SESSION_MEMBERS)


@pytest.mark.parametrize("name", SESSION_MEMBERS)
def test_a_member_has_the_docs_and_the_parameters_of_its_definition(name):
    member = inspect.getattr_static(Session, name)
    assert inspect.getdoc(member)
    elsewhere: dict[str, Any] = {
        "status": calls.get_session,
        "execution": calls.execution.find,
        "restore": calls.restore_version,
    }
    definition = elsewhere.get(name, getattr(calls, name, None))
    if definition is None:
        return
    assert inspect.getdoc(member) == inspect.getdoc(definition)
    theirs = list(inspect.signature(definition).parameters.values())[1:]
    ours = list(inspect.signature(member).parameters.values())[1:]
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize("name", EXECUTION_MEMBERS)
def test_both_faces_of_an_execution_have_every_member_with_the_parameters_and_docs_of_its_definition(name):
    sync, coroutine = getattr(Execution, name), getattr(AsyncExecution, name)
    definition = getattr(calls.execution, name)
    assert inspect.getdoc(sync) == inspect.getdoc(coroutine) == inspect.getdoc(definition)
    first, second = inspect.signature(sync), inspect.signature(coroutine)
    assert list(first.parameters.values()) == list(second.parameters.values())
    assert inspect.iscoroutinefunction(coroutine) == (name not in ("events", "raw_events", "outputs"))
    theirs = list(inspect.signature(definition).parameters.values())
    ours = list(first.parameters.values())[1:]
    given = ("notebook", "execution_id")
    assert [(p.name, p.kind, p.default) for p in ours] == [
        (p.name, p.kind, p.default) for p in theirs if p.name not in given
    ]


def test_the_faces_of_an_execution_have_no_other_members():
    for handle in (Execution, AsyncExecution):
        assert {name for name in dir(handle) if not name.startswith("_")} == set(EXECUTION_MEMBERS)


@pytest.mark.parametrize("name", BROWSER_MEMBERS)
def test_both_faces_of_a_browser_have_every_member_with_the_same_parameters_and_docs(name):
    sync, coroutine = inspect.getattr_static(BrowserSession, name), inspect.getattr_static(AsyncBrowserSession, name)
    assert inspect.getdoc(sync)
    assert inspect.getdoc(sync) == inspect.getdoc(coroutine)
    if isinstance(sync, property):
        assert name in ("session_id", "client_id", "is_new") or inspect.iscoroutinefunction(coroutine)
        return
    first, second = inspect.signature(sync), inspect.signature(coroutine)
    assert list(first.parameters.values()) == list(second.parameters.values())
    assert first.return_annotation == second.return_annotation
    definition = getattr(calls.browser, name, None)
    if definition is not None:
        theirs = list(inspect.signature(definition).parameters.values())[1:]
        assert [(p.name, p.kind, p.default) for p in theirs] == [
            (p.name, p.kind, p.default) for p in list(first.parameters.values())[1:]
        ]


def test_the_faces_of_a_browser_have_no_other_members():
    for face, more in ((BrowserSession, {"page"}), (AsyncBrowserSession, set())):
        assert {name for name in dir(face) if not name.startswith("_")} == set(BROWSER_MEMBERS) | more


@pytest.mark.parametrize(
    "pair",
    [
        (Client, AsyncClient),
        (type(Client().sessions), type(AsyncClient().sessions)),
        (type(Client().profiles), type(AsyncClient().profiles)),
    ],
)
def test_both_clients_have_the_same_members(pair):
    sync, coroutine = pair
    members = {name for name in dir(sync) if not name.startswith("_")}
    assert members == {name for name in dir(coroutine) if not name.startswith("_")}
    for name in members - {"Session", "BrowserSession"}:
        assert inspect.getdoc(getattr(sync, name)) == inspect.getdoc(getattr(coroutine, name))
        assert (
            inspect.signature(getattr(sync, name)).parameters.items()
            == inspect.signature(getattr(coroutine, name)).parameters.items()
        )


def test_frontends_use_no_private_names_of_the_client():
    handles = [Session("s"), BrowserSession("b"), Client(), Client().sessions, Client().profiles]
    private = {name for handle in handles for name in dir(handle) if name.startswith("_") and not name.endswith("__")}
    assert {"_perform", "_apart", "_notebook", "_client"} <= private
    used = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for folder in ("cli", "ipython")
        for path in (Path(runtimed.__path__[0]) / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in private and ast.unparse(node.value) != "self"
    ]
    assert used == []


def test_dir_names_what_is_public_and_a_star_imports_it():
    names = dir(runtimed)
    public = [name for name in names if not (name.startswith("__") and name.endswith("__"))]
    assert public == sorted(set(runtimed.__all__) - {"__version__"})
    assert {"__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"} <= set(names)

    everything: dict[str, object] = {}
    exec("from runtimed import *", everything)
    assert set(everything) - {"__builtins__"} == set(runtimed.__all__)
    assert importlib.import_module("runtimed.client").__name__ == "runtimed.client"
    assert inspect.ismodule(runtimed.client)


def test_a_public_name_is_what_type_checkers_take_it_for():
    tree = ast.parse(Path(runtimed.__path__[0], "__init__.py").read_text("utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = {
        name.name: getattr(importlib.import_module(str(node.module)), name.name)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert imported.keys() < set(runtimed.__all__)
    assert {name: getattr(runtimed, name) for name in imported} == imported
    with pytest.raises(AttributeError, match="module 'runtimed' has no attribute 'Sesion'"):
        _ = runtimed.Sesion  # type: ignore[attr-defined]  # that is what is tested


@pytest.mark.parametrize(
    ("program", "left_out"),
    [
        ("daemon", ("runtimed.client",)),
        ("host", ("runtimed.client", "runtimed.document", "sqlite3")),
        ("browser", ("runtimed.client", "runtimed.document", "sqlite3")),
    ],
)
def test_a_process_that_serves_starts_without_what_it_does_not_use(program: str, left_out: tuple[str, ...]):
    script = (
        f"import sys, runtimed.{program}.__main__\n"
        f"print([name for name in sys.modules if name.startswith({left_out!r})])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_the_package_reads_no_environment_and_imports_nothing_heavy():
    script = (
        "import sys, runtimed\n"
        "runtimed.Session\n"
        "heavy = {'automerge', 'zmq', 'jupyter_client', 'IPython', 'ipykernel', 'rich', 'psutil', 'uvloop'}\n"
        "heavy.add('playwright')\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"RUNTIMED_IDLE_EXIT": "nonsense", "RUNTIMED_SOCKET_PATH": "x" * 1000},
    )

    assert done.stdout == "[]\n"
