"""Attacks from other users, by hostile names, and on what should stay secret: each is refused, and nothing leaks."""

import asyncio
import contextlib
import functools
import logging
import os
import re
import secrets
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pytest
import zmq
from jupyter_client.session import Session as WireSession

from runtimed import AsyncSession, Client, DaemonUnavailable, Session, default_socket_path
from runtimed.daemon.hosting.kernel_start import KernelRequest
from runtimed.protocol import codec
from runtimed.protocol.document_operations import DeleteCell
from runtimed.protocol.execution_operations import Enqueue
from runtimed.protocol.kernel_operations import DescribeProcess
from runtimed.protocol.messages import PROTOCOL_VERSION, Failure, Hello, Message, Refusal, Reply, Request, Welcome
from runtimed.protocol.session_operations import GetAudit, GetSession, GetStatus, Join, StopSession
from runtimed.settings import read_settings
from tests.conftest import own_daemon, processes_of, wait_until
from tests.old_sessions import put_old_sessions
from tests.wire import Wire

STRANGER = 54321
"""A user who has nothing to do with these tests."""

HOSTILE = "evil\n2026-01-01 00:00:00,000 ERROR forged\r\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u2028end"

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")


@contextlib.contextmanager
def as_stranger(work: Callable[[Callable[[bytes], object]], None]) -> Iterator[BinaryIO]:
    """Do something as another user, in a process of its own; what it says can be read from the file."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            work(lambda data: os.write(write, data))
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        yield said
    assert os.waitpid(pid, 0)[1] == 0


def call(path: Path, data: bytes, say: Callable[[bytes], object]) -> None:
    """Connect to a socket, send bytes, and say what comes back, or why it is not possible."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except PermissionError as exc:
            say(str(exc.strerror).encode())
            return
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while answer := sock.recv(65536):
                say(answer)


def listen(path: Path, say: Callable[[bytes], object]) -> None:
    """Listen on a socket for one connection, and say what comes over it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o777)
        server.listen()
        say(b"on\n")
        connection, _ = server.accept()
        with connection:
            while heard := connection.recv(65536):
                say(heard)


def deadline() -> float:
    return time.monotonic() + 20


def greet(hello: Hello) -> tuple[Wire, Message]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(default_socket_path()))
    channel = Wire(sock)
    channel.send(hello)
    return channel, channel.receive(deadline())


def log_lines(data_dir: Path) -> list[str]:
    """The lines of all logs: of the daemon, and of the hosts that live."""
    paths = [*data_dir.glob("daemon.log*"), *data_dir.glob("run/*/host.log"), *data_dir.glob("run/*/host.err")]
    # Not splitlines(), which splits at more than a line feed.
    return [line for path in paths for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture(scope="module")
def served(shared_daemon: Path) -> Iterator[Session]:
    """The only session with a kernel in the folder of the shared daemon."""
    with Session("served") as session:
        session.start_kernel()
        yield session


# --- other users ------------------------------------------------------------------------------------------------------


@needs_root
def test_another_user_cannot_reach_the_socket(served):
    with as_stranger(lambda say: call(default_socket_path(), b"", say)) as said:
        assert said.read() == b"Permission denied"


@needs_root
def test_another_user_who_reaches_the_socket_all_the_same_is_refused_and_noted(shared_daemon, served):
    run, host = shared_daemon / "run", next(shared_daemon.glob("run/*/host.sock"))
    for path in (shared_daemon, run, host.parent):
        path.chmod(0o755)
    for path in (default_socket_path(), host):
        path.chmod(0o666)
        frames = codec.encode_message(Hello(PROTOCOL_VERSION, "0", "stranger", None, 1))
        frames += codec.encode_message(Request(1, StopSession(notebook_id="served")))
        with as_stranger(functools.partial(call, path, frames)) as said:
            found = [codec.decode_answer(body) for body in codec.FrameReader().receive_data(said.read())]
        assert found == [Refusal(f"This socket belongs to user {os.getuid()}; you are user {STRANGER}")]
        path.chmod(0o600)
    for path in (host.parent, run, shared_daemon):
        path.chmod(0o700)
    refused = [line for line in log_lines(shared_daemon) if "refused a connection by user 54321" in line]
    assert len(refused) == 2
    assert served.status().status == "active"
    # Connections of other tests may still be closing.
    wait_until(lambda: (status := Client().status()) and status.peers == 2, "the stranger is counted")


@needs_root
@pytest.mark.parametrize("face", ["blocking", "asyncio", "status"])
def test_a_client_tells_nothing_to_another_user_who_listens_in_the_daemon_s_place(short_folder, monkeypatch, face):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    path = default_socket_path()
    path.parent.mkdir()
    short_folder.chmod(0o755)
    os.chown(path.parent, STRANGER, STRANGER)
    with as_stranger(functools.partial(listen, path)) as said:
        assert said.readline() == b"on\n"
        if face == "blocking":
            with pytest.raises(
                DaemonUnavailable, match=f"the process that listens there belongs to user {STRANGER}, not to you"
            ):
                Session("s").start_kernel()
        elif face == "asyncio":
            with pytest.raises(
                DaemonUnavailable, match=f"the process that listens there belongs to user {STRANGER}, not to you"
            ):
                asyncio.run(AsyncSession("s").start_kernel())
        else:
            assert Client().is_running() is False
        assert said.read() == b""


@needs_root
def test_an_asyncio_channel_to_another_user_is_never_made(short_folder):
    from runtimed.protocol.connection import AskingSide
    from runtimed.transport.unix import connect

    short_folder.chmod(0o777)
    path = short_folder / "s"

    def handler(channel: object) -> Any:
        pytest.fail("a channel to a stranger")

    with as_stranger(functools.partial(listen, path)) as said:
        assert said.readline() == b"on\n"
        with pytest.raises(
            PermissionError, match=f"the process that listens there belongs to user {STRANGER}, not to you"
        ):
            asyncio.run(connect(path, AskingSide[None]("it"), handler))
        assert said.read() == b""


# --- the folder of the sockets ----------------------------------------------------------------------------------------


@pytest.fixture
def fallback(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in the shared folder for temporary files, where sockets are when the data folder's path is long."""
    shared = short_folder / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    data_dir = short_folder / ("long" * 20)
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(data_dir))
    monkeypatch.setenv("TMPDIR", str(shared))
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = read_settings().hosts_dir
    assert folder == default_socket_path().parent
    assert folder.parent == shared
    with own_daemon(data_dir):
        yield folder


def test_the_fallback_folder_is_made_private_and_serves(fallback):
    with Session("s") as session:
        assert session.run("print(1)").stdout == "1\n"
        assert stat.S_IMODE(fallback.lstat().st_mode) == 0o700


def link(folder: Path) -> None:
    (folder.parent / "theirs").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "theirs")


def dangling_link(folder: Path) -> None:
    folder.symlink_to(folder.parent / "nowhere")


def open_folder(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


def foreign_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, STRANGER, STRANGER)


def file(folder: Path) -> None:
    folder.write_text("precious")


@pytest.mark.parametrize(
    ("trap", "sentence"),
    [
        (link, "is not a folder (or a link to one); remove it"),
        (dangling_link, "is not a folder (or a link to one); remove it"),
        (file, "is not a folder (or a link to one); remove it"),
        (open_folder, "Others may enter the folder"),
        pytest.param(foreign_folder, f"belongs to user {STRANGER}, not to you", marks=needs_root),
    ],
)
def test_a_trap_in_the_place_of_the_fallback_folder_is_refused_and_left_alone(fallback, trap, sentence):
    trap(fallback)
    before = {path: path.lstat() for path in fallback.parent.rglob("*")}

    with pytest.raises(DaemonUnavailable, match=re.escape(sentence)) as info:
        Session("s").connect()

    assert str(fallback) in str(info.value)
    after = {path: path.lstat() for path in fallback.parent.rglob("*")}
    assert [(p, s.st_ino, s.st_mode, s.st_uid) for p, s in after.items()] == [
        (p, s.st_ino, s.st_mode, s.st_uid) for p, s in before.items()
    ]
    # That the test's own clean-up finds nothing to refuse.
    if fallback.is_symlink() or fallback.is_file():
        fallback.unlink()
    else:
        fallback.rmdir()


def test_a_link_in_the_place_of_the_socket_is_refused_and_not_followed(data_dir):
    run = default_socket_path().parent
    run.mkdir(mode=0o700)
    target = data_dir / "precious"
    target.write_text("precious")
    target.chmod(0o640)
    default_socket_path().symlink_to(target)

    with pytest.raises(DaemonUnavailable, match="is not a socket; move it away"):
        Session("s").connect()

    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("precious", 0o640)
    default_socket_path().unlink()


# --- what is made -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=oct)
def test_everything_that_is_made_is_private_whatever_the_umask(short_folder, umask):
    folder = short_folder / "a" / "b" / "data"
    before = os.umask(umask)
    try:
        with own_daemon(folder), Session("s") as session:
            session.run("print('x' * 3_000_000)")
            session.run("from IPython.display import HTML\nHTML('y' * 3_000_000)")
            session.restart_kernel()
            session.run("1")
            found = {path: path.lstat().st_mode for path in short_folder.rglob("*")}
            kernel_umask = session.run("import os\nprint(os.umask(0))").stdout
    finally:
        os.umask(before)

    wanted = {stat.S_IFDIR: 0o700, stat.S_IFREG: 0o600, stat.S_IFSOCK: 0o600}
    wrong = {str(path): oct(mode) for path, mode in found.items() if wanted[stat.S_IFMT(mode)] != stat.S_IMODE(mode)}
    assert wrong == {}
    names = {
        re.sub(r"[0-9a-f]{8,}", "X", str(path.relative_to(folder))) for path in found if path.is_relative_to(folder)
    }
    assert {"daemon.log", "registry.db", "sessions/X.db", "run/daemon.sock"} <= names
    assert {"run/X/host.sock", "run/X/kernel.json", "run/X/host.log", "run/X/z1-1", "run/X/z1-2"} <= names
    assert any(name.startswith("blobs/") and name.endswith("/X") for name in names)
    # What the user's own code makes is as the user wants it.
    assert kernel_umask == f"{umask}\n"


def test_a_log_that_is_begun_anew_is_private_too(tmp_path):
    from runtimed.daemon.__main__ import _LogFile

    before = os.umask(0)
    try:
        handler = _LogFile(tmp_path / "daemon.log", maxBytes=100, backupCount=3, encoding="utf-8")
        for _ in range(10):
            handler.emit(logging.makeLogRecord({"msg": "x" * 60}))
        handler.close()
    finally:
        os.umask(before)

    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == dict.fromkeys(
        ["daemon.log", "daemon.log.1", "daemon.log.2", "daemon.log.3"], 0o600
    )


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_is_on_a_command_line_in_a_log_or_with_the_environment_on_disk(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_LOG_LEVEL", "DEBUG")
    with Session("daemon") as session:  # the daemon's own environment is not the one with the secret
        session.create_cell("1")
    monkeypatch.setenv("SECRET_VARIABLE", "secret-of-the-environment")
    with Session("s") as session:
        code = "import os\nprint(os.environ['SECRET_VARIABLE'] == 'secret-of-the-' + 'environment', 'secret-output')"
        assert session.run(code).stdout == "True secret-output\n"
        session.run("raise ValueError('secret-error')")
        session.set_metadata("key", "secret-metadata")
        session.create_cell("# secret-source")
        channel, _ = greet(Hello(PROTOCOL_VERSION, "0", "broken", None, 1))
        wrong = {"op": "describe_process", "environment": {"secret-name": ["secret-value"]}}
        body = codec.pack({"t": "request", "id": 1, "operation": wrong})
        channel.sock.settimeout(20)
        channel.sock.sendall(len(body).to_bytes(4, "big") + body)
        refusal = channel.receive(deadline())
        channel.close()
        assert isinstance(refusal, Refusal)
        assert "secret" not in refusal.message

        assert processes_of(data_dir)
        for process in processes_of(data_dir):
            assert "secret" not in " ".join(process.cmdline())
        logged = "\n".join(log_lines(data_dir))
        assert logged
        assert "secret" not in logged
        for path in data_dir.rglob("*"):
            if path.is_file():
                assert b"secret-of-the-environment" not in path.read_bytes(), path
        status = Client().status()
        assert status is not None
        for pid in (status.pid, session.status().host_pid):
            assert "SECRET_VARIABLE" not in psutil.Process(pid).environ()
    assert "secret" not in repr(DescribeProcess(environment={"NAME": "secret"}))
    assert "secret" not in repr(KernelRequest(notebook_id="s", environment={"NAME": "secret"}))


def test_a_kernel_inherits_nothing_of_its_host(served):
    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux shows what processes have open")
    status = served.status()
    assert status.host_pid is not None
    (guard,) = (p for p in psutil.Process(status.host_pid).children() if p.pid != status.kernel_pid)
    guarded = str(Path(f"/proc/{guard.pid}/fd/0").readlink())
    assert guarded.startswith("pipe:")

    def opened(pid: int | None) -> set[str]:
        return {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}

    assert guarded in opened(status.host_pid)
    shared = opened(status.host_pid) & opened(status.kernel_pid)
    # The pipe in which the kernel leaves its last words.
    assert len([name for name in shared if name.startswith("pipe:")]) == 1
    assert guarded not in shared
    assert not [name for name in shared if name.startswith("socket:")]


def test_a_kernel_does_nothing_for_whoever_lacks_its_key(shared_daemon, served, tmp_path):
    witness = tmp_path / "witness"
    context: Any = zmq.Context()
    shell = context.socket(zmq.DEALER)
    shell.setsockopt(zmq.LINGER, 0)
    shell.connect(f"ipc://{next(shared_daemon.glob('run/*/z0-1'))}")
    content = {"code": f"open({str(witness)!r}, 'w')", "silent": False}
    for key in (b"", b"wrong"):
        wire = WireSession(key=key)
        shell.send_multipart(wire.serialize(wire.msg("execute_request", content)))
    # What comes later through the right hands is answered, so the others have been passed over by then.
    assert served.run("print(1)").stdout == "1\n"
    assert shell.poll(200) == 0
    shell.close()
    context.term()

    assert not witness.exists()


# --- hostile names ----------------------------------------------------------------------------------------------------


def test_every_record_of_the_logs_is_one_printable_line_whatever_names_and_last_words_hold(data_dir):
    put_old_sessions(data_dir, [HOSTILE])
    with Session(HOSTILE) as session:
        session.create_cell("1")
        session.run(f"import os\nos.write(2, {HOSTILE.encode()!r})\nos._exit(3)")
        wait_until(lambda: session.status().status == "error", "the kernel does not die")
        error = session.status().error
        assert error is not None
        assert "\\x1b[2J" in error
        assert all(line.isprintable() for line in error.split("\n"))
        session.start_kernel()
        for hello in (
            Hello(PROTOCOL_VERSION, HOSTILE, "tester", None, 1),
            Hello(PROTOCOL_VERSION, "0", HOSTILE, None, 1),
            Hello(PROTOCOL_VERSION, "0", "tester", HOSTILE, 1),
        ):
            channel, _ = greet(hello)
            channel.close()
        body = codec.pack({"t": HOSTILE})
        channel, _ = greet(Hello(PROTOCOL_VERSION, "0", "tester", None, 1))
        channel.sock.settimeout(20)
        channel.sock.sendall(len(body).to_bytes(4, "big") + body)
        assert isinstance(channel.receive(deadline()), Refusal)
        channel.close()
        wait_until(lambda: any("lost client tester" in line for line in log_lines(data_dir)), "nothing is logged")
        session.stop()

        lines = log_lines(data_dir)

    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line)] == []
    assert not [line for line in lines if "forged" in line and re.match(r"2026-01-01 00:00:00,000 ERROR", line)]
    assert any("forged" in line for line in lines)


@pytest.mark.parametrize(
    ("opening", "name"),
    [
        ("from runtimed.daemon.__main__ import _log_to_file as f; f(read_settings())", "daemon.log"),
        (
            "from runtimed.host.running import _open_log as f; f(read_settings().data_dir / 'host.log', name)",
            "host.log",
        ),
    ],
    ids=["daemon", "host"],
)
def test_a_traceback_in_a_log_is_one_printable_line_too(short_folder, monkeypatch, opening, name):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    script = f"""
import logging
from runtimed.settings import read_settings
name = {HOSTILE!r}
{opening}
try:
    raise ValueError(name)
except ValueError:
    logging.getLogger("here").exception("it failed: %s", name)
"""
    subprocess.run([sys.executable, "-c", script], check=True)

    (line,) = (short_folder / name).read_text(encoding="utf-8").split("\n")[:-1]
    assert line.isprintable()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} .*ERROR here: it failed: evil\\n2026", line)
    assert "\\nTraceback (most recent call last):\\n" in line


@pytest.mark.parametrize(
    ("client_id", "label", "sentence"),
    [
        ("", None, "A client id is a text of 1 to 128 characters"),
        ("x" * 129, None, "A client id is a text of 1 to 128 characters"),
        ("two words", None, "printable ASCII"),
        ("evil\n", None, "printable ASCII"),
        ("größe", None, "printable ASCII"),
        ("\udcff", None, "printable ASCII"),
        ("tester", "x" * 2**15, "at most 256 characters; this one has 32768"),
        ("tester", HOSTILE, "one line of plain text"),
    ],
    ids=["empty", "long", "space", "newline", "letters", "surrogate", "long label", "hostile label"],
)
def test_a_greeting_with_an_absurd_name_is_refused_in_a_sentence(shared_daemon, client_id, label, sentence):
    with Session("bystander") as session:
        session.create_cell("1")
        channel, answer = greet(Hello(PROTOCOL_VERSION, "0", client_id, label, 1))
        channel.close()

        assert isinstance(answer, Refusal)
        assert sentence in answer.message
        assert len(answer.message) < 2000
        assert session.get_cells()


@pytest.mark.parametrize(
    "operation",
    [
        GetSession(notebook_id="x" * 10**7),
        GetAudit(notebook_id="x" * 10**7),
        StopSession(notebook_id="x" * 10**7),
        Join(notebook_id="x" * 10**7),
        GetSession(notebook_id="\ud800"),
        DeleteCell(notebook_id="s", cell_id="x" * 10**7),
        Enqueue(notebook_id="s", execution_id="x" * 10**7, cell_id="c", source="1"),
        Enqueue(notebook_id="s", execution_id="e", cell_id="\ud800", source="1"),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_an_absurd_id_is_refused_in_a_sentence_and_the_connection_goes_on(shared_daemon, operation):
    with Session("s") as session:
        session.start_kernel()
        # A client of its own, whose first request is none that came before.
        channel, answer = greet(Hello(PROTOCOL_VERSION, "0", secrets.token_hex(8), None, 1))
        assert isinstance(answer, Welcome)
        channel.send(Request(1, operation))
        refused = channel.receive(deadline())
        channel.send(Request(2, GetStatus()))
        answered = channel.receive(deadline())
        channel.close()

        assert isinstance(refused, Failure)
        assert refused.error in ("SessionError", "CellNotFound", "InvalidCell", "InvalidArgument")
        assert len(refused.message) < 2000
        assert isinstance(answered, Reply)
        assert session.get_cells() == []
