"""A real frontend's side of the proxy kernel: Jupyter's own kernel manager and client."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

import runtimed

SPECS: Final = Path(__file__).parents[3] / "jupyter-config"
"""Where Jupyter finds the kernelspec that the package installs."""

TIMEOUT: Final = 30.0


class Client:
    """A frontend's client of a kernel."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self.client = client
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT)

    def execute(self, code: str, **options: Any) -> str:
        """Send a request and return its id."""
        return str(self.client.execute(code, **options))

    def next(self, parent: str | None = None) -> dict[str, Any]:
        """Return the next message on IOPub, of a parent or of any."""
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=TIMEOUT)
            if parent is None or message["parent_header"].get("msg_id") == parent:
                return message

    def until_idle(self, parent: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the messages on IOPub that a request causes, up to its end."""
        found: list[tuple[str, dict[str, Any]]] = []
        while not found or found[-1] != ("status", {"execution_state": "idle"}):
            message = self.next(parent)
            found.append((message["msg_type"], message["content"]))
        return found

    def reply(self, parent: str) -> dict[str, Any]:
        """Return the content of the reply to a request."""
        while True:
            message: dict[str, Any] = self.client.get_shell_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") == parent:
                content: dict[str, Any] = message["content"]
                return content

    def run(self, code: str, **options: Any) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
        """Execute, and return the content of the reply and what was published, without the states."""
        parent = self.execute(code, **options)
        messages = [message for message in self.until_idle(parent) if message[0] != "status"]
        return self.reply(parent), messages

    def text(self, code: str) -> str:
        """Execute, and return what was printed."""
        return "".join(content["text"] for kind, content in self.run(code)[1] if kind == "stream")


class Frontend(Client):
    """A frontend that manages its kernel."""

    def __init__(self, manager: KernelManager) -> None:
        super().__init__(manager.client())
        self.manager = manager

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel()
        else:
            self.manager.cleanup_resources()


Start = Callable[..., Frontend]


@pytest.fixture(scope="module")
def start(shared_daemon: Path) -> Iterator[Start]:
    """Starts frontends; their kernels end with the module, and the sessions are stopped."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(SPECS))
        for name in ("JPY_SESSION_NAME", "RUNTIMED_NOTEBOOK_ID"):
            patch.delenv(name, raising=False)

        def start(session_id: str = "", **environment: str) -> Frontend:
            manager = KernelManager(kernel_name="runtimed")
            manager.start_kernel(env={**os.environ, "RUNTIMED_NOTEBOOK_ID": session_id, **environment})
            frontend = Frontend(manager)
            stack.callback(frontend.close)
            return frontend

        yield start
    for status in runtimed.Client().sessions.iter(status="active"):
        runtimed.Client().sessions.stop(status.session_id)


@pytest.fixture(scope="module")
def frontend(start: Start) -> Frontend:
    """A frontend of the session `shared`, for tests that do it no harm."""
    return start("shared")
