"""Hostile, slow and unlucky peers: the daemon tells each what is wrong, and the others notice nothing."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtimed import Client, DaemonUnavailable, ProtocolError, Session, default_socket_path
from runtimed.ids import CellId, ClientId
from runtimed.protocol import codec
from runtimed.protocol.document_operations import AddCell, DeleteCell, GetCells, MergeCopy, RestoreVersion, SetSource
from runtimed.protocol.execution_operations import Enqueue, ReadEvents
from runtimed.protocol.host_operations import Attach
from runtimed.protocol.kernel_operations import DescribeProcess, KernelChoice, StartKernel
from runtimed.protocol.messages import PROTOCOL_VERSION, Ack, Cancel, Hello, Message, Refusal, Reply, Request, Welcome
from runtimed.protocol.operation import Operation
from runtimed.protocol.session_operations import GetStatus, Join
from tests.conftest import wait_until
from tests.document.edited import EditedDocument
from tests.wire import Wire

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def innocent(shared_daemon):
    """A session that is there before all that is done here."""
    with Session("bystander") as session:
        session.create_cell("x = 1")
        yield session


@pytest.fixture(scope="module")
def with_kernel(shared_daemon):
    """A session with a kernel, for tests that do it no harm."""
    with Session("with a kernel") as session:
        session.start_kernel()
        yield session


@pytest.fixture
def bystander(innocent):
    """A client whose session must go on unharmed, with the daemon that it has."""
    before = Client().status()
    yield innocent
    after = Client().status()
    assert before is not None
    assert after is not None
    assert before.pid == after.pid
    assert innocent.get_cells()[0].source == "x = 1"
    assert innocent.create_cell("y")


def connect(client_id: str = "tester", protocol: int = PROTOCOL_VERSION) -> Wire:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(default_socket_path()))
    channel = Wire(sock)
    channel.send(Hello(protocol, "0.0.9", client_id, None, os.getpid()))
    return channel


def greeted(client_id: str = "tester") -> Wire:
    channel = connect(client_id)
    assert isinstance(channel.receive(deadline()), Welcome)
    return channel


def deadline() -> float:
    return time.monotonic() + 20


def ask(channel: Wire, request: Request[Operation[Any]]) -> Message:
    channel.send(request)
    return channel.receive(deadline())


def raw(data: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(str(default_socket_path()))
    sock.sendall(data)
    return sock


def answers(sock: socket.socket) -> list[Message]:
    """Read until the daemon closes."""
    reader = codec.FrameReader()
    found: list[Message] = []
    with sock:
        while data := sock.recv(65536):
            found += [codec.decode_answer(body) for body in reader.receive_data(data)]
    return found


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1",
        (codec.MAX_FRAME + 1).to_bytes(4, "big"),
        b"GET / HTTP/1.1\r\n\r\n",
        codec.encode_message(Ack(1)),
        codec.encode_message(Request(1, GetStatus())),
        b"\x00\x00\x00\x00",
    ],
    ids=["garbage", "oversize", "http", "ack", "no greeting", "empty frame"],
)
def test_a_peer_that_does_not_speak_the_protocol_is_told_so_and_closed(bystander, data):
    found = answers(raw(data))

    assert [type(message) for message in found] == [Refusal]


def test_a_peer_of_another_version_is_told_which_side_to_upgrade(bystander):
    channel = connect(protocol=PROTOCOL_VERSION + 1)

    message = channel.receive(deadline())
    channel.close()

    assert isinstance(message, Refusal)
    assert "upgrade the daemon" in message.message


def test_a_client_is_told_of_an_older_daemon(short_folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    path = default_socket_path()
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(codec.encode_message(Refusal("upgrade the daemon")))

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(ProtocolError, match="upgrade the daemon"):
            Session("s").connect()
        thread.join()


def test_a_foreign_file_in_the_socket_s_place_is_named(short_folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    (short_folder / "run").mkdir(mode=0o700)
    default_socket_path().write_text("precious")

    with pytest.raises(DaemonUnavailable, match="is not a socket"):
        Session("s").connect()
    assert Client().is_running() is False
    assert default_socket_path().read_text() == "precious"


def test_a_wrong_type_in_a_request_ends_that_peer_alone(bystander):
    channel = greeted()
    body = codec.pack({"t": "request", "id": 1, "operation": {"op": "add_cell", "notebook_id": "n", "cell_id": 5}})
    channel.sock.settimeout(20)
    channel.sock.sendall(len(body).to_bytes(4, "big") + body)

    message = channel.receive(deadline())
    channel.close()

    assert isinstance(message, Refusal)
    assert "cell_id" in message.message


def test_operations_of_hosts_are_refused_to_clients(bystander):
    channel = greeted()

    message = ask(channel, Request(1, Attach()))
    channel.close()

    assert message == Refusal("a daemon knows no operation 'attach'")


def test_mutated_frames_crash_and_hang_nobody(bystander):
    numbers = random.Random(7)
    frames = [
        codec.encode_message(Hello(PROTOCOL_VERSION, "0", "c", None, 1)),
        codec.encode_message(Request(1, Join(notebook_id="fuzz"))),
        codec.encode_message(Request(2, AddCell(notebook_id="fuzz", cell_id="c", source="text"))),
        codec.encode_message(Request(3, GetCells(notebook_id="fuzz"))),
        codec.encode_message(Request(4, ReadEvents(notebook_id="fuzz", execution_id="e"))),
    ]
    for _ in range(300):
        data = bytearray(b"".join(frames))
        for _ in range(numbers.randint(1, 6)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        sock = raw(bytes(data))
        sock.shutdown(socket.SHUT_WR)
        answers(sock)


def test_a_client_killed_in_the_middle_of_a_frame_is_forgotten(bystander, with_kernel):
    frame = codec.encode_message(Request(1, AddCell(notebook_id="n", cell_id="c", source="x" * 10_000)))
    sock = raw(codec.encode_message(Hello(PROTOCOL_VERSION, "0", "c", None, 1)) + frame[:5000])
    sock.close()

    wait_until(lambda: (Client().status() or bystander).peers == 3, "the dead client is still counted")


def test_a_request_that_is_sent_again_is_not_done_again(bystander):
    cell = AddCell(notebook_id="again", cell_id="c", source="one")
    edit = SetSource(notebook_id="again", cell_id="c", source="one two", base="one")
    delete = DeleteCell(notebook_id="again", cell_id="d")
    first = greeted()
    ask(first, Request(1, cell))
    ask(first, Request(2, edit))
    ask(first, Request(3, AddCell(notebook_id="again", cell_id="d")))
    ask(first, Request(4, delete))
    first.close()

    again = greeted()
    replies = [ask(again, request) for request in (Request(1, cell), Request(2, edit), Request(4, delete))]
    again.close()

    assert replies == [Reply(1, {}), Reply(2, {}), Reply(4, {})]
    with Session("again") as session:
        assert [cell.source for cell in session.get_cells()] == ["one two"]


def test_a_restore_that_is_sent_again_is_not_done_again(bystander):
    with Session("restored") as session:
        cell_id = session.create_cell("one")
        session.append_source(cell_id, " two")
        first, restore = greeted(), Request(1, RestoreVersion(notebook_id="restored", version=1))
        assert ask(first, restore) == Reply(1, {"edits": 1})
        first.close()
        session.append_source(cell_id, " three")

        again = greeted()
        assert ask(again, restore) == Reply(1, {"edits": 1})
        again.close()

        assert session.get_cell_source(cell_id) == "one three"


def test_a_copy_that_is_sent_again_is_merged_once_and_answered_alike(bystander):
    with Session("copied") as session:
        cell_id = session.create_cell("one")
        copy = EditedDocument.load(session.export("automerge"), [])
        copy.append_source(CellId(cell_id), " two", author=ClientId("b" * 32))
        first, merge = greeted(), Request(1, MergeCopy(notebook_id="copied", copy=copy.save()))
        reply = Reply(1, {"added": [], "changed": [cell_id], "deleted": []})
        assert ask(first, merge) == reply
        first.close()

        again = greeted()
        assert ask(again, merge) == reply
        again.close()

        assert session.get_cell_source(cell_id) == "one two"


def test_an_execution_that_is_sent_again_runs_once(bystander, with_kernel, tmp_path):
    witness = tmp_path / "witness"
    operation = Enqueue(
        notebook_id=with_kernel.notebook_id,
        execution_id="e1",
        cell_id="sent again",
        source=f"open({str(witness)!r}, 'a').write('x')",
    )
    for _ in range(3):
        channel = greeted()
        channel.send(Request(1, operation))
        while not isinstance(channel.receive(deadline()), Reply):
            pass
        channel.close()
    assert with_kernel.get_cell_ids().count("sent again") == 1
    # Whatever was queued behind it comes after it.
    assert with_kernel.run("1").success
    assert witness.read_text() == "x"


def test_a_kernel_starts_though_its_start_is_cancelled_in_the_same_instant(bystander):
    start = StartKernel(notebook_id="hasty", kernel=KernelChoice(env_source="current"))
    process = DescribeProcess(environment=dict(os.environ), cwd=str(Path.cwd()), interpreter=sys.executable)
    channel = greeted()
    ask(channel, Request(1, process))
    ask(channel, Request(2, AddCell(notebook_id="hasty", cell_id="c")))  # opening a room takes a while
    # In one piece, so that the daemon reads both before it does anything.
    channel.sock.sendall(codec.encode_message(Request(3, start)) + codec.encode_message(Cancel(3)))

    wait_until(lambda: Client().sessions.get("hasty").kernel_status == "idle", "no kernel starts")
    channel.close()
    Client().sessions.stop("hasty")


def test_many_requests_are_in_flight_on_one_connection(bystander):
    channel = greeted()
    for number in range(500):
        channel.send(Request(number, GetStatus()))

    replies = [channel.receive(deadline()) for _ in range(500)]
    channel.close()

    assert [reply.id for reply in replies if isinstance(reply, Reply)] == list(range(500))


def test_a_reader_that_stops_costs_no_memory_delays_nobody_and_gets_all_when_it_reads_again(bystander, with_kernel):
    daemon = psutil.Process((Client().status() or bystander).pid)
    cell_id = with_kernel.create_cell("for n in range(60): print(str(n % 10) * 2**20, flush=True)")
    stopped = with_kernel.subscribe([cell_id], ["output"])
    result = with_kernel.execute_cell(cell_id)
    expected = "".join(str(n % 10) * 2**20 + "\n" for n in range(60))

    assert result.stdout == expected
    assert daemon.memory_info().rss < 200 * 2**20
    received: list[str] = []
    while sum(map(len, received)) < len(expected):
        output = next(stopped).output
        assert output is not None
        received.append(output.text or "")
    stopped.close()

    assert "".join(received) == expected


def test_fifty_clients_see_a_thousand_outputs_complete_and_in_order(bystander, with_kernel):
    cell_id = with_kernel.create_cell("for n in range(1000): print(n, flush=True)")
    streams = [with_kernel.subscribe([cell_id], ["output", "done"]) for _ in range(50)]
    with_kernel.execute_cell(cell_id)

    for stream in streams:
        texts = []
        for event in stream:
            if event.event_type == "done":
                break
            assert event.output is not None
            texts.append(event.output.text or "")
        stream.close()
        assert "".join(texts) == "".join(f"{n}\n" for n in range(1000))


def test_ctrl_c_in_the_middle_of_a_call_abandons_it_and_leaves_the_session_usable(bystander):
    script = """
import os, signal, threading, time, runtimed

def press():
    with runtimed.Session(session.notebook_id) as other:
        while not any(cell.outputs for cell in other.get_cells()):
            time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

with runtimed.Session() as session:
    session.start_kernel()
    threading.Thread(target=press).start()
    try:
        session.run("import time\\nprint('on', flush=True)\\ntime.sleep(60)")
    except KeyboardInterrupt:
        print("interrupted")
    cell = session.get_cells()[0]
    session.interrupt()
    print(session.run("print('usable')").stdout, end="")
print(session.status().status)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.returncode) == ("interrupted\nusable\nclosed\n", 0)


def test_a_signal_handler_that_exits_still_stops_the_session_of_the_block(bystander):
    script = """
import signal, sys, runtimed
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
with runtimed.Session() as session:
    session.start_kernel()
    print(session.notebook_id, flush=True)
    session.run("import time; time.sleep(60)")
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    with Session(name) as session:
        wait_until(session.get_cells, "the cell does not begin")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 4
        process.stdout.close()
        assert (session.status().status, session.status().close_reason) == ("closed", "error")


def test_a_session_used_after_a_fork_connects_anew(bystander):
    script = """
import os, sys, runtimed
session = runtimed.Session("forked")
session.run("x = 1")
pid = os.fork()
sys.stdout.write(f"{'child' if pid == 0 else 'parent'} {session.run('print(x)').stdout}")  # in one piece
sys.stdout.flush()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
print(session.run("print(x + 1)").stdout, end="")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert sorted(done.stdout.splitlines()) == ["2", "child 1", "parent 1"]


def test_clients_work_without_automerge_pyzmq_and_jupyter_client(bystander):
    script = """
import sys
for name in ("automerge", "zmq", "jupyter_client", "ipykernel"):
    sys.modules[name] = None
import asyncio, runtimed
with runtimed.Session("thin") as session:
    print(session.run("6 * 7").display_data[0].data["text/plain"])
async def main():
    async with runtimed.AsyncSession("thin") as session:
        print((await session.run("6 * 8")).display_data[0].data["text/plain"])
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr) == ("42\n48\n", "")
