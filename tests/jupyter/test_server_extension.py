"""What the server extension gives an opened notebook, and what it says of sessions: over a real Jupyter Server."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runtimed import Session
from runtimed.cli.main import main
from tests.conftest import wait_until

CONFIG = Path(__file__).parents[2] / "jupyter-config"


class Server:
    """A Jupyter Server for the notebooks of a folder."""

    def __init__(self, folder: Path, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder, self._token = folder, secrets.token_hex(16)
        self._url = f"http://127.0.0.1:{port}/"
        shutil.copytree(CONFIG / "server-config", home / "config" / "jupyter_server_config.d")
        self.data = home / "data"
        shutil.copytree(CONFIG / "kernels", self.data / "kernels")
        self._log = home / "server.log"
        arguments = [f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"]
        arguments += ["--ServerApp.ip=127.0.0.1", "--allow-root", "--no-browser"]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyter_server", *arguments],
                env={
                    **os.environ,
                    "HOME": str(home),
                    "JUPYTER_CONFIG_DIR": str(home / "config"),
                    "JUPYTER_DATA_DIR": str(self.data),
                    "JUPYTER_TOKEN": self._token,
                },
                stdout=output,
                stderr=output,
                cwd=home,
            )

    def answers(self) -> bool:
        """Whether it serves."""
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(urllib.error.URLError):
            return self.ask("api/status")[0] == 200
        return False

    def ask(self, path: str, *, token: str | None = None) -> tuple[int, Any]:
        """Return the status of an answer, and its content."""
        request = urllib.request.Request(self._url + path)
        request.add_header("Authorization", f"token {token or self._token}")
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.load(exc)

    def notebook(self, name: str) -> dict[str, Any]:
        """Open a notebook; return its content."""
        status, model = self.ask(f"api/contents/{name}")
        assert status == 200
        content: dict[str, Any] = model["content"]
        return content

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture(scope="module")
def server(shared_daemon: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("notebooks").resolve(), tmp_path_factory.mktemp("home"))
    try:
        wait_until(server.answers, "the server does not answer", timeout=60.0)
        yield server
    finally:
        server.close()


def write(path: Path, *sources: str, kernel: str = "runtimed") -> list[str]:
    """Write a notebook whose cells have an output of the file; return their ids."""
    cells = [
        nbformat.v4.new_code_cell(
            source, execution_count=7, outputs=[nbformat.v4.new_output("stream", text="of the file")]
        )
        for source in sources
    ]
    spec = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
    return [cell.id for cell in cells]


SHOW = "from IPython.display import display; print('a'); display({'image/png': 'UE5H'}, raw=True); 6 * 7"


def test_an_opened_notebook_has_the_outputs_of_its_session(server: Server) -> None:
    path = server.folder / "filled.ipynb"
    ran, never = write(path, SHOW, "2")
    with Session(str(path)) as session:
        execution = session.submit(ran, code=SHOW)
        count = execution.wait().execution_count
    cells = {cell["id"]: cell for cell in server.notebook(path.name)["cells"]}
    assert cells[ran]["execution_count"] == count
    assert cells[ran]["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": "a\n"},
        {"output_type": "display_data", "data": {"image/png": "UE5H"}, "metadata": {}},
        {"output_type": "execute_result", "data": {"text/plain": "42"}, "metadata": {}, "execution_count": count},
    ]
    assert [output["text"] for output in cells[never]["outputs"]] == ["of the file"]
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].text == "of the file"  # reading writes nothing


def test_a_kernelspec_of_one_session_fills_from_that_session(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(server.data))
    assert main(["kernelspec", "install", "--session", "of a team", "--name", "team"]) == 0
    path = server.folder / "team.ipynb"
    (cell_id,) = write(path, "print('team')", kernel="team")
    with Session("of a team") as session:
        session.submit(cell_id, code="print('team')").wait()
    (cell,) = server.notebook(path.name)["cells"]
    assert cell["outputs"][0]["text"] == "team\n"


def test_a_kernelspec_is_known_by_what_it_runs(server: Server) -> None:
    folder = server.data / "kernels" / "renamed"
    folder.mkdir()
    argv = ["python", "-m", "runtimed.jupyter.proxy_kernel", "-f", "{connection_file}"]
    path = server.folder / "renamed.ipynb"
    (cell_id,) = write(path, "print(1)", kernel="renamed")

    def filled(**spec: Any) -> str:
        (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "", "language": "python"} | spec))
        return str(server.notebook(path.name)["cells"][0]["outputs"][0]["text"])

    for session_id in (str(path), "of the variables", "of the command"):
        with Session(session_id) as session:
            session.submit(cell_id, code=f"print({session_id!r})").wait()
    assert filled() == f"{path}\n"
    assert filled(env={"RUNTIMED_NOTEBOOK_ID": "of the variables"}) == "of the variables\n"
    assert filled(argv=[*argv, "--session=of the command"]) == "of the command\n"
    assert filled(argv=[*argv, "--session"]) == f"{path}\n"
    assert filled(argv=["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]) == "of the file"
    assert filled(argv=5) == "of the file"


def test_a_link_to_the_notebook_is_the_same_notebook(server: Server) -> None:
    path = server.folder / "real.ipynb"
    (cell_id,) = write(path, "print('linked')")
    (server.folder / "link.ipynb").symlink_to(path)
    with Session(str(path)) as session:
        session.submit(cell_id, code="print('linked')").wait()
    (cell,) = server.notebook("link.ipynb")["cells"]
    assert cell["outputs"][0]["text"] == "linked\n"


def test_other_notebooks_are_left_alone(server: Server) -> None:
    path = server.folder / "plain.ipynb"
    (cell_id,) = write(path, "print(1)", kernel="python3")
    with Session(str(path)) as session:
        session.submit(cell_id, code="print(1)").wait()
    (cell,) = server.notebook(path.name)["cells"]
    assert cell["outputs"][0]["text"] == "of the file"
    (server.folder / "text.txt").write_text("text")
    assert server.ask("api/contents/text.txt")[1]["content"] == "text"
    write(server.folder / "no-session.ipynb", "3")
    assert server.notebook("no-session.ipynb")["cells"][0]["outputs"][0]["text"] == "of the file"


@pytest.mark.parametrize(
    "spec", [None, "runtimed", ["runtimed"], {"name": None}, {"name": "not/one"}, {"name": "absent"}]
)
def test_a_notebook_with_anything_in_place_of_a_kernelspec_is_opened(server: Server, spec: Any) -> None:
    path = server.folder / "odd.ipynb"
    write(path, "1")
    notebook = json.loads(path.read_text())
    notebook["metadata"]["kernelspec"] = spec
    path.write_text(json.dumps(notebook))
    assert server.notebook(path.name)["cells"][0]["outputs"][0]["text"] == "of the file"


def test_a_session_says_who_is_there_and_what_runs(server: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with Session("looked-at") as session:
        execution = session.submit(code=f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)")
        behind = session.submit(code="1")
        wait_until(lambda: session.status().kernel_status == "busy", "nothing runs")
        status, state = server.ask("runtimed/sessions/looked-at")
        gate.touch()
        behind.wait()
    assert status == 200
    assert state == {
        "session_id": "looked-at",
        "status": "active",
        "kernel_status": "busy",
        "peers": 1,
        "queue": [
            {"cell_id": execution.cell_id, "execution_id": execution.id, "status": "running"},
            {"cell_id": behind.cell_id, "execution_id": behind.id, "status": "queued"},
        ],
    }


def test_who_has_no_token_or_names_no_session_gets_nothing(server: Server) -> None:
    assert server.ask("runtimed/sessions/looked-at", token="wrong")[0] == 403
    assert server.ask("runtimed/sessions/never%20was")[0] == 404
    assert server.ask("runtimed/sessions/%00")[0] in (400, 404)
