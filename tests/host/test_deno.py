"""A Deno kernel: TypeScript in a session, with the real deno."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runtimed import ExecutionResult, KernelStartFailed, Session
from runtimed.host.bootstrap import Bootstrap
from runtimed.host.process import find_command, find_deno

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deno(shared_daemon: Path) -> Iterator[Session]:
    """A session with a Deno kernel."""
    with Session("deno") as session:
        # What is asked of the environment does not matter to Deno.
        session.start_kernel(kernel_type="deno", env_source="uv:prewarmed")
        yield session


def data_of(result: ExecutionResult) -> list[object]:
    """What the outputs of a success show."""
    assert result.success, result.outputs
    return [dict(output.data or {}) for output in result.outputs]


def test_a_deno_session_says_what_it_is(deno: Session) -> None:
    assert deno.env_source == "deno"
    status = deno.status()
    assert (status.kernel_type, status.kernel_status, status.env_source) == ("deno", "idle", "deno")


def test_typescript_has_results_and_keeps_its_variables(deno: Session) -> None:
    assert data_of(deno.run("const years: number[] = [1958, 2001]; years.length + ' years'")) == [
        {"text/plain": '\x1b[32m"2 years"\x1b[39m'}
    ]
    result = deno.run("console.log(years[1] - years[0]); console.error('of CO2')")
    assert (result.success, result.stdout, result.stderr) == (True, "43\n", "of CO2\n")


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("Deno.jupyter.html`<b>${1 + 1}</b>`", {"text/html": "<b>2</b>"}),
        ("Deno.jupyter.md`# Title`", {"text/markdown": "# Title"}),
        ("Deno.jupyter.svg`<svg/>`", {"image/svg+xml": "<svg/>"}),
        ("await Deno.jupyter.display({ 'text/plain': 'by hand' }, { raw: true })", {"text/plain": "by hand"}),
    ],
)
def test_rich_display(deno: Session, code: str, shown: dict[str, str]) -> None:
    assert data_of(deno.run(code)) == [shown]


def test_an_update_of_a_display_replaces_it(deno: Session) -> None:
    show = (
        "await Deno.jupyter.broadcast('{}', {{data: {{'text/plain': '{}'}}, "
        "metadata: {{}}, transient: {{display_id: 'bar'}}}})"
    )
    first = deno.run(show.format("display_data", "half"))
    assert data_of(deno.run(show.format("update_display_data", "done"))) == []
    assert [dict(output.data or {}) for output in deno.get_cell(first.cell_id).outputs] == [{"text/plain": "done"}]


def test_no_late_result_is_lost_or_given_to_the_next_cell(deno: Session) -> None:
    # Deno publishes results after it says that it is idle.
    for number in range(40):
        assert data_of(deno.run(f"{number}")) == [{"text/plain": f"\x1b[33m{number}\x1b[39m"}]


def test_an_exception_is_an_output_with_its_place(deno: Session) -> None:
    result = deno.run("throw new TypeError('too hot')")
    assert not result.success
    assert result.error is not None
    assert (result.error.ename, result.error.evalue) == ("TypeError", "too hot")
    assert result.error.traceback[0] == "TypeError: too hot"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("throw 'too hot'", "too hot"),
        ("await Promise.reject(new RangeError('too cold'))", "too cold"),
        ("let x = = 3", "Execution failed. Deno gives no reason; look for a syntax error, or an import of a package"),
    ],
)
def test_whatever_fails_says_why_in_the_lines_that_are_shown(deno: Session, code: str, said: str) -> None:
    error = deno.run(code).error
    assert error is not None
    assert said in "\n".join(error.traceback or (f"{error.ename}: {error.evalue}",))


def test_completion(deno: Session) -> None:
    reply = deno.complete("Deno.jup")
    assert (reply["matches"], reply["cursor_start"], reply["cursor_end"]) == (["jupyter"], 5, 8)


def test_a_loop_is_interrupted_and_the_variables_stay(deno: Session) -> None:
    deno.run("globalThis.kept = 41")
    cell_id = deno.create_cell("console.log('begun'); while (true) {}")
    events = deno.stream_execute(cell_id)
    for event in events:
        if event.output is not None:
            threading.Thread(target=deno.interrupt).start()
            break
    assert [event.event_type for event in events][-1] == "error"
    assert data_of(deno.run("kept + 1")) == [{"text/plain": "\x1b[33m42\x1b[39m"}]


def test_its_ports_are_on_the_loopback_interface_alone(deno: Session) -> None:
    pid = deno.status().kernel_pid
    assert pid is not None
    listening = [sock for sock in psutil.Process(pid).net_connections() if sock.status == psutil.CONN_LISTEN]
    assert len(listening) >= 5
    assert {sock.laddr.ip for sock in listening} == {"127.0.0.1"}


def test_a_restart_forgets_the_variables(deno: Session) -> None:
    deno.run("globalThis.before = 1")
    deno.restart_kernel()
    assert data_of(deno.run("typeof before")) == [{"text/plain": '\x1b[32m"undefined"\x1b[39m'}]


def test_a_kernelspec_of_deno_works_too(shared_daemon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kernels" / "typescript"
    folder.mkdir(parents=True)
    argv = [find_deno(os.environ["PATH"], sys.executable), "jupyter", "--kernel", "--conn", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Deno", "language": "typescript", "interrupt_mode": "message"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with Session() as session:
        session.start_kernel(env_source="kernelspec:typescript")
        assert data_of(session.run("40 + 2")) == [{"text/plain": "\x1b[33m42\x1b[39m"}]


def test_the_last_words_of_a_deno_that_does_not_start_are_shown(
    shared_daemon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "deno"
    broken.write_text("#!/bin/sh\nprintf '\\033[0;33mthis\\033[0m is no deno' >&2\nexit 3\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    with Session() as session, pytest.raises(KernelStartFailed, match="this is no deno"):
        session.start_kernel(kernel_type="deno")


def test_without_deno_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    bootstrap = Bootstrap(
        folder=str(tmp_path),
        epoch="",
        data_dir="",
        socket_path="",
        blobs_dir="",
        kernel_type="deno",
        env_source="deno",
        interpreter=str(tmp_path / "python"),
        environment={"PATH": str(tmp_path)},
        lock=0,
    )
    with pytest.raises(KernelStartFailed, match=r"pip install 'ipython-runtimed\[deno\]'"):
        find_command(bootstrap)
