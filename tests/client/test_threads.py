"""One blocking handle in several threads, in signal handlers and after a fork: only what must wait waits."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runtimed import BrowserSession, Client, ConnectionLost, NotConnected, RuntimedError, Session
from runtimed.client.blocking import Connection
from runtimed.client.connections import MAX_CONNECTIONS, MAX_IDLE
from runtimed.settings import Settings
from tests.conftest import wait_until


@pytest.fixture(scope="module")
def work(shared_daemon) -> Iterator[Session]:
    """A handle for all threads, of a session with a kernel."""
    with Session("threads") as session:
        session.start_kernel()
        yield session
        session.stop()


class Gate:
    """Code that says in one piece that it has begun, and runs until it may end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        begin = "import os, time\nprint('begun\\n', end='', flush=True)\n"
        self.code = f"{begin}while not os.path.exists({str(path)!r}): time.sleep(0.01)"

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def gate(tmp_path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


def in_thread(call: Any, *args: Any) -> tuple[threading.Thread, list[Any]]:
    """Make a call in a thread; its result or error will be in the list."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call(*args))
        except RuntimedError as exc:
            results.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def signal_when_busy(session: Session, number: int) -> None:
    wait_until(lambda: session.status().kernel_status == "busy", "it does not run")
    os.kill(os.getpid(), number)


def test_while_one_thread_runs_code_the_others_get_what_they_ask_for(work, gate):
    events = work.subscribe(event_types=["output"])
    running, results = in_thread(work.run, gate.code)

    assert next(events).output.text == "begun\n"
    assert "getattr" in work.complete("getat", 5)["matches"]
    assert work.inspect("print")["found"]
    assert work.status().kernel_status == "busy"
    assert work.get_cell(work.create_cell("# beside")).source == "# beside"
    assert not results
    work.interrupt()
    running.join(30)

    assert results[0].error.ename == "KeyboardInterrupt"
    assert work.status().peers == 1
    events.close()


def test_many_threads_run_code_each_with_its_own_result(work):
    count = 3 * MAX_CONNECTIONS
    with ThreadPoolExecutor(count) as pool:
        results = list(pool.map(lambda n: work.run(f"print({n})"), range(count)))
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(count)]
    assert len({result.execution_id for result in results}) == count
    assert len(work._connection._idle) <= MAX_IDLE


def test_an_iterator_is_closed_by_another_thread_and_shared_by_none(work):
    events = work.subscribe(cell_ids=["none"])
    waiting, results = in_thread(list, events)
    wait_until(events._turn.locked, "it does not wait")
    with pytest.raises(RuntimedError, match="Another thread waits for the next of these events"):
        next(events)
    events.close()
    waiting.join(30)
    assert results == [[]]
    assert list(events) == []


def test_closing_the_handle_ends_what_waits_in_other_threads(shared_daemon, work, gate):
    session = Session("threads")
    session.connect()
    running, results = in_thread(session.run, gate.code)
    wait_until(lambda: work.status().kernel_status == "busy", "it does not run")
    session.close()
    running.join(30)
    assert [type(result) for result in results] == [ConnectionLost]
    assert str(results[0]) == "The connection to the daemon is closed"
    assert not session.is_connected
    session.connect()
    gate.open()
    assert session.run("print('again')").stdout == "again\n"
    session.close()


def test_closing_the_handle_ends_its_iterators_in_other_threads_and_in_its_own(work, gate):
    past = work.run("for n in range(3): print(n, flush=True)").execution_id
    with Session("threads") as session:
        execution = session.submit(code=gate.code)
        iterators = [session.subscribe(cell_ids=["none"]), execution.events(), session.execution(past).events()]
        assert next(iterators[2]).event_type == "execution_started"  # the others have arrived
        waiting = [in_thread(list, events) for events in iterators[:2]]
        wait_until(lambda: all(events._turn.locked() for events in iterators[:2]), "they do not wait")
        wait_until(lambda: work.status().kernel_status == "busy", "it does not run")
    for thread, results in waiting:
        thread.join(30)
        assert [(type(result), str(result)) for result in results] == [
            (
                NotConnected,
                "Not connected: this handle of session 'threads' was closed; connect() joins the session again",
            )
        ]
        assert results[0].notebook_id == "threads"
    session.connect()
    with pytest.raises(NotConnected):
        next(iterators[2])  # although the handle is connected again
    assert [list(events) for events in iterators] == [[], [], []]
    gate.open()
    assert session.wait(execution.id).success
    session.close()


def test_an_iterator_ends_whose_handle_was_closed_while_it_was_made(work, monkeypatch):
    session = Session("threads")
    session.connect()
    opened = Connection.open

    def close_meanwhile(connection: Connection, *args: Any) -> None:
        opened(connection, *args)
        session.close()

    monkeypatch.setattr(Connection, "open", close_meanwhile)
    with pytest.raises(NotConnected):
        session.subscribe()


def test_a_signal_handler_calls_in_the_middle_of_a_call(work, gate):
    seen: list[Any] = []

    def handle(*_args: Any) -> None:
        seen.append(work.get_cell(work.create_cell("# in a handler")).source)
        gate.open()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        in_thread(signal_when_busy, work, signal.SIGUSR1)
        assert work.run(gate.code).stdout == "begun\n"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == ["# in a handler"]


def test_an_interrupt_of_the_keyboard_abandons_its_call_and_no_other(work, gate):
    cell_id = work.create_cell(gate.code)
    pressing, _ = in_thread(signal_when_busy, work, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        work.execute_cell(cell_id)
    pressing.join()
    gate.open()
    assert work.run("print('next')").stdout == "next\n"
    assert work.wait(work.get_cell(cell_id).execution_id).success


def test_a_forked_child_is_a_client_of_its_own_and_harms_no_call_of_its_parent(work, gate):
    running, results = in_thread(work.run, gate.code)
    wait_until(lambda: work.status().kernel_status == "busy", "it does not run")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = work.get_cell(work.create_cell("# by a child")).source
            work.close()
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"# by a child"
    os.close(reading)
    os.close(writing)
    assert work.get_cell_ids()
    gate.open()
    running.join(30)
    assert results[0].success


def test_a_forked_child_has_a_stream_of_its_own_and_takes_nothing_from_its_parent_s(work, gate):
    cell_id = work.create_cell(f"{gate.code}\nfor number in range(3): print(number, flush=True)")
    events = work.stream_execute(cell_id)
    assert [next(events).event_type for _ in range(2)] == ["execution_started", "output"]
    for goes_on in (False, True):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if goes_on:
                    gate.open()
                    status = [event.event_type for event in events][-1] != "done"
                else:
                    events.close()
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    texts = [event.output.text for event in events if event.output is not None]
    assert "".join(texts) == "0\n1\n2\n"
    work.close()
    work.connect()


def test_a_stream_that_is_left_early_closes_its_connection_silently(work, recwarn):
    cell_id = work.create_cell("print('early')")
    for _ in work.stream_execute(cell_id):
        break
    events = work.subscribe()
    work.wait(work.queue_cell(cell_id))
    next(events)
    sock = events._connection._channel._sock
    del events
    gc.collect()
    assert sock.fileno() == -1
    assert [str(warning.message) for warning in recwarn] == []


def test_calls_of_several_threads_outlive_the_daemon_each_once(work, gate):

    work.run("ran = 0")
    threads = [in_thread(work.run, "ran += 1; print(ran)") for _ in range(4)]
    daemon = Client().status()
    assert daemon is not None
    os.kill(daemon.pid, signal.SIGKILL)
    for thread, _results in threads:
        thread.join(60)
    assert sorted(results[0].stdout for _thread, results in threads) == ["1\n", "2\n", "3\n", "4\n"]


def test_a_browser_s_handle_refuses_each_thread_for_itself(shared_daemon):
    browser = BrowserSession("no-browser")
    begun = time.monotonic()
    waiting = [in_thread(browser.observe) for _ in range(5)]
    for thread, _results in waiting:
        thread.join(30)
    assert time.monotonic() - begun < 30
    assert {type(results[0]).__name__ for _thread, results in waiting} <= {"SessionClosed", "SessionNotFound"}
    browser.close()


@pytest.mark.parametrize("moment", ["the first", "one more", "after the daemon's death"])
def test_a_handle_that_is_closed_while_it_connects_ends_the_call_and_stays_closed(work, gate, moment):
    session = Session("threads")
    events = work.subscribe(event_types=["output"])
    results: list[Any] = []
    if moment == "one more":
        running, results = in_thread(session.run, gate.code)
        next(events)
    elif moment != "the first":
        session.connect()
        daemon = Client().status()
        assert daemon is not None
        os.kill(daemon.pid, signal.SIGKILL)
    connecting = Connection._connect

    def close_meanwhile(connection: Connection, settings: Settings) -> None:
        patch.undo()
        in_thread(session.close)[0].join(30)
        connecting(connection, settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "_connect", close_meanwhile)
        with pytest.raises(ConnectionLost, match="The connection to the daemon is closed"):
            session.create_cell("never written")
    assert not session.is_connected
    if moment == "one more":
        running.join(30)
    assert [type(result) for result in results] == [ConnectionLost] * len(results)
    assert "never written" not in [cell.source for cell in work.get_cells()]
    events.close()
