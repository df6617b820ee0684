"""The limits of a daemon: each is reached, one more is told so, and everybody else is served as before."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed import AsyncSession, Client, DaemonUnavailable, Session, SessionError, default_socket_path
from runtimed.client.aio import AsyncConnection
from runtimed.client.flows import Flow, follow_events
from runtimed.client.identity import Identity
from runtimed.daemon.files import MAX_STRANGERS, SPARE_CONNECTIONS, files_needed, fit_limits
from runtimed.daemon.serving.daemon import ROOM_REST
from runtimed.daemon.serving.overview import daemon_status
from runtimed.daemon.serving.peer import MAX_UNANSWERED
from runtimed.protocol.document_operations import AddCell, GetCells, GetMetadata
from runtimed.protocol.execution_operations import Subscribe, Watch
from runtimed.protocol.messages import EventFrame, Failure, Message, Refusal, Reply, Request
from runtimed.protocol.replies import Done
from runtimed.protocol.session_operations import Join
from runtimed.settings import DaemonLimits
from runtimed.transport import reception
from tests.conftest import wait_until
from tests.daemon.conftest import daemon_with_a_clock, until
from tests.daemon.serving.test_peers import answers, ask, connect, deadline, greeted, raw
from tests.wire import Wire

# --- sessions ---


def test_one_active_session_more_than_allowed_is_told_what_to_do_and_the_others_are_served(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_MAX_SESSIONS", "2")
    with Session("first") as first, Session("second") as second, Session("third") as third:
        first.create_cell("x = 1")
        second.create_cell("x = 2")

        with pytest.raises(SessionError) as caught:
            third.create_cell("x = 3")
        with pytest.raises(SessionError, match="as many as it may have"):
            third.run("x = 3")

        assert caught.value.message == (
            "Session 'third' cannot start: this daemon has 2 active sessions, as many as it may have. Stop one "
            "(`runtimed sessions --status active` lists them, `runtimed stop ID` stops one), or raise the "
            "limit: `RUNTIMED_MAX_SESSIONS=… runtimed restart`"
        )
        assert (caught.value.notebook_id, caught.value.max_sessions) == ("third", 2)
        assert first.run("print('served')").stdout == "served\n"
        second.stop()
        third.create_cell("x = 3")
        second.connect()
        assert [cell.source for cell in second.get_cells()] == ["x = 2"]
        with pytest.raises(SessionError, match="'second' cannot start"):
            second.start_kernel()
        assert second.status().status == "closed"


# --- connections ---


def test_one_connection_more_than_allowed_is_refused_and_the_others_are_served(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_MAX_CONNECTIONS", "3")
    sessions = [Session("s") for _ in range(4)]
    for session in sessions[:3]:
        session.connect()
    cell_id = sessions[0].create_cell("x")

    with pytest.raises(DaemonUnavailable) as caught:
        sessions[3].connect()
    with pytest.raises(DaemonUnavailable, match="as many as it may have"):
        asyncio.run(AsyncSession("s").connect())

    assert caught.value.message == (
        "This daemon has 3 connections, as many as it may have. Close sessions that are no longer used, or raise the "
        "limit: `RUNTIMED_MAX_CONNECTIONS=… runtimed restart`"
    )
    assert [session.get_cell_ids() for session in sessions[:3]] == [[cell_id]] * 3
    sessions[1].close()
    sessions[3].connect()
    assert sessions[3].get_cell_ids() == [cell_id]
    for session in sessions:
        session.close()


def test_at_the_limit_of_connections_a_session_can_still_be_asked_interrupted_and_stopped(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_MAX_CONNECTIONS", "1")
    with Session("s") as session:
        session.start_kernel()
        cell_id = session.create_cell("while True: pass")
        execution_id = session.queue_cell(cell_id)

        status = Client().status()
        assert status is not None
        assert status.peers == 2
        wait_until(lambda: session.status().kernel_status == "busy", "the cell does not begin")
        with pytest.raises(DaemonUnavailable, match="1 connections"):
            session.subscribe()
        session.interrupt()
        assert not session.wait(execution_id).success
        session.stop()


def test_beyond_the_spare_connections_the_greeting_is_refused(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_MAX_CONNECTIONS", "2")
    with Session("s") as session:
        session.create_cell("x")
        channels = [greeted() for _ in range(1 + SPARE_CONNECTIONS)]

        one_more = connect()
        answer = one_more.receive(deadline())
        one_more.close()

        assert isinstance(answer, Refusal)
        assert answer.error == "DaemonUnavailable"
        with pytest.raises(DaemonUnavailable, match="as many as it may have"):
            Client().status()
        assert [cell.source for cell in session.get_cells()] == ["x"]
        for channel in channels:
            channel.close()


def test_a_connection_that_says_nothing_is_closed_and_counts_for_nobody(own_folder, monkeypatch):
    monkeypatch.setattr(reception, "GREETING_DEADLINE", 1.0)

    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon):
            silent = [await asyncio.open_unix_connection(default_socket_path()) for _ in range(3)]
            await until(lambda: daemon.reception.strangers == 3, "they are not there")
            assert daemon_status(daemon).status.peers == 0
            async with AsyncSession("s") as session:
                for reader, writer in silent:
                    assert b"No greeting came within 1 seconds" in await reader.read()
                    writer.close()
                # Who has said who it is stays.
                assert await session.create_cell("x")
                assert (daemon.reception.strangers, daemon_status(daemon).status.peers) == (0, 1)

    asyncio.run(scenario())


def test_a_crowd_that_says_nothing_keeps_nobody_out(data_dir):
    with Session("s") as session:
        session.create_cell("x")
        crowd = [raw(b"") for _ in range(MAX_STRANGERS + 20)]

        assert [type(message) for message in answers(crowd[0])] == [Refusal]
        with Session("t") as newcomer:
            newcomer.create_cell("y")
        assert [cell.source for cell in session.get_cells()] == ["x"]
        for sock in crowd:
            sock.close()


# --- requests ---


def test_what_comes_faster_than_the_rate_waits_and_nothing_is_lost(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_MAX_REQUEST_RATE", "50")
    with Session("bystander") as bystander:
        cell_id = bystander.create_cell("x")
        hasty = greeted()
        began = time.monotonic()
        for n in range(1, 151):
            hasty.send(Request(n, AddCell(notebook_id="hasty", cell_id=f"c{n}", source=str(n))))

        # Everybody has a rate of their own.
        sources = [bystander.get_cell_source(cell_id) for _ in range(40)]
        assert time.monotonic() - began < 1.9
        assert sources == ["x"] * 40

        replies = [hasty.receive(deadline()) for _ in range(150)]
        assert replies == [Reply(n, {}) for n in range(1, 151)]
        assert time.monotonic() - began > 1.9
        hasty.close()
    with Session("hasty") as session:
        assert [cell.source for cell in session.get_cells()] == [str(n) for n in range(1, 151)]


def test_with_too_many_requests_under_way_the_next_is_read_when_one_is_answered(data_dir):
    with Session("s") as session:
        session.start_kernel()
        cell_id = session.create_cell("import time; time.sleep(1000)")
        execution_id = session.queue_cell(cell_id)
        watcher = greeted()
        count = MAX_UNANSWERED + 200
        for n in range(1, count + 1):
            watcher.send(Request(n, Watch(notebook_id="s", execution_id=execution_id)))
        watcher.send(Request(count + 1, GetMetadata(notebook_id="s", key="k")))
        seen: set[int] = set()
        while len(seen) < MAX_UNANSWERED:
            seen.add(_id_of(watcher.receive(deadline())))
        seen.update(_read_for(watcher, 0.5))
        assert max(seen) == MAX_UNANSWERED
        assert session.get_cell_source(cell_id) is not None

        session.interrupt()
        replies: list[int] = []
        while len(replies) < count + 1:
            message = watcher.receive(deadline())
            if isinstance(message, Reply):
                replies.append(message.id)
        assert sorted(replies) == list(range(1, count + 2))
        watcher.close()


def _read_for(channel: Wire, seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        while True:
            yield _id_of(channel.receive(end))


def _id_of(message: Message) -> int:
    assert isinstance(message, EventFrame | Reply)
    return message.id


# --- rooms ---


def test_a_peer_cannot_open_more_sessions_than_the_daemon_can_hold(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_MAX_SESSIONS", "2")
    monkeypatch.setenv("RUNTIMED_MAX_CONNECTIONS", "4")
    with Session("bystander") as bystander:
        bystander.create_cell("x")
        greedy = greeted()
        replies = [ask(greedy, Request(n, Join(notebook_id=f"room {n}"))) for n in range(1, 6)]
        assert [type(reply) for reply in replies] == [Reply] * 5

        refused = ask(greedy, Request(6, Join(notebook_id="room 6")))

        assert isinstance(refused, Failure)
        assert refused.error == "SessionError"
        assert "6 sessions are in use, as many as this daemon can have open" in refused.message
        assert [cell.source for cell in bystander.get_cells()] == ["x"]
        greedy.close()
        with Session("newcomer") as newcomer:
            newcomer.create_cell("y")


def test_sessions_that_are_only_looked_at_make_way_for_others(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_MAX_SESSIONS", "2")
    monkeypatch.setenv("RUNTIMED_MAX_CONNECTIONS", "4")
    with Session("kept") as session:
        session.create_cell("x")
        looker = greeted()
        replies = [ask(looker, Request(n, GetCells(notebook_id=f"look {n}"))) for n in range(1, 50)]
        assert replies == [Reply(n, {"cells": []}) for n in range(1, 50)]
        assert [cell.source for cell in session.get_cells()] == ["x"]
        looker.close()

    assert len(list((data_dir / "sessions").glob("*.db"))) <= 6


def test_a_session_that_is_watched_without_being_joined_stays_open(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            session = AsyncSession("s")
            await session.create_cell("x")
            watcher = AsyncConnection(Identity())
            await watcher.open()
            events: list[object] = []
            watching = asyncio.create_task(_collect(watcher, events))
            await until(lambda: daemon.room("s").log.watchers, "nobody watches")
            await session.close()
            await until(lambda: daemon_status(daemon).status.peers == 1, "the session is still connected")
            daemon.tick()
            clock.now += ROOM_REST + 1
            daemon.tick()

            again = AsyncSession("s")
            await again.create_cell("y")
            await until(lambda: events, "the watcher sees nothing")
            watching.cancel()
            watcher.close()
            await again.close()
            await until(lambda: daemon_status(daemon).status.peers == 0, "somebody is still connected")

            def rest() -> bool:
                clock.now += ROOM_REST + 1
                daemon.tick()
                return not daemon_status(daemon).rooms

            # The edits are written into the document first.
            await until(rest, "the room stays open")

    asyncio.run(scenario())


async def _collect(connection: AsyncConnection, events: list[object]) -> None:
    await connection.perform(_follow(events))


def _follow(events: list[object]) -> Flow[Done]:
    return (yield from follow_events(Subscribe(notebook_id="s"), events.append))


# --- open files ---


@given(
    st.builds(DaemonLimits, max_sessions=st.integers(1, 10**6), max_connections=st.integers(1, 10**6)),
    st.integers(0, 10**7),
)
def test_limits_are_lowered_until_the_open_files_are_enough(limits, files):
    fitting = fit_limits(limits, files)

    assert 1 <= fitting.max_sessions <= limits.max_sessions
    assert 1 <= fitting.max_connections <= limits.max_connections
    smallest = DaemonLimits(max_sessions=1, max_connections=1)
    assert files_needed(fitting) <= max(files, files_needed(smallest))
    if files_needed(limits) <= files:
        assert fitting == limits


def test_a_daemon_with_few_files_takes_fewer_connections_and_lives(data_dir):
    script = """
import resource, runtimed
resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))
runtimed.Session("s").connect()
print(runtimed.Client().status().limits["max_connections"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    allowed = int(done.stdout)
    assert 0 < allowed < 100

    with Session("s") as session:
        session.run("x = 1")
        pid = Client().status().pid  # type: ignore[union-attr]  # it runs
        others = [Session(f"other {n}") for n in range(allowed - 1)]
        for other in others:
            other.connect()
        with pytest.raises(DaemonUnavailable, match=f"{allowed} connections"):
            Session("one more").connect()
        crowd = [raw(b"") for _ in range(700)]
        assert session.run("print(x)").stdout == "1\n"
        for other in others:
            other.close()
        for sock in crowd:
            sock.close()
    status = Client().status()
    assert status is not None
    assert status.pid == pid
