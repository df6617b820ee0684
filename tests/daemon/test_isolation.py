"""One session's error is that session's own: the daemon lives on, the others notice nothing, and it is said once."""

import asyncio
import logging
import math
import struct

import msgpack
import pytest

from runtimed import AsyncSession, Client, Session
from runtimed.daemon.rooms.room import Room
from runtimed.daemon.serving.peer import MAX_UNANSWERED
from runtimed.ids import SessionId
from runtimed.protocol import codec
from runtimed.protocol.execution_operations import Subscribe
from runtimed.protocol.messages import PROTOCOL_VERSION, EventFrame, Hello, Refusal, Request, Welcome
from tests.daemon.conftest import daemon_with_a_clock, until
from tests.daemon.serving.test_peers import answers, deadline, greeted, raw


def sentences(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(what)]


def test_a_damaged_row_of_one_session_is_told_once_and_the_others_keep_their_deadlines(own_folder, caplog):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            async with AsyncSession("damaged") as damaged, AsyncSession("s", timeout_minutes=1) as session:
                await damaged.create_cell("x")
                await session.create_cell("y")
                daemon.registry_store.database.execute("UPDATE sessions SET checksum = 0 WHERE session_id = 'damaged'")

                for _ in range(5):
                    daemon.tick()
                clock.now += 61
                daemon.tick()
                await until(lambda: daemon.registry.get("s").status == "timed_out", "it has not timed out")
            told = [problem for problem in daemon.problems if "The time limit of session 'damaged' fails: " in problem]
            assert len(told) == 1
            daemon.registry_store.database.execute("DELETE FROM sessions WHERE session_id = 'damaged'")

    asyncio.run(scenario())
    assert len(sentences(caplog, "the time limit of session 'damaged' waits")) == 1


@pytest.mark.parametrize("step", ["tidy", "deadline", "in_use"])
def test_a_defect_that_strikes_one_session_at_every_look_leaves_the_others_alone(own_folder, caplog, monkeypatch, step):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            async with AsyncSession("bad") as bad, AsyncSession("s", timeout_minutes=1) as session:
                await bad.create_cell("x")
                await session.create_cell("y")
                sound = getattr(Room, step)

                def broken(room: Room) -> object:
                    if room.notebook_id == "bad":
                        raise ZeroDivisionError("a defect")
                    return sound.__get__(room) if isinstance(sound, property) else sound(room)

                with monkeypatch.context() as patch:
                    patch.setattr(Room, step, property(broken) if isinstance(sound, property) else broken)
                    clock.now += 61
                    for _ in range(5):
                        daemon.tick()
                    await until(lambda: daemon.registry.get("s").status == "timed_out", "it has not timed out")
                assert [cell.source for cell in await bad.get_cells()] == ["x"]
            assert [problem for problem in daemon.problems if "ZeroDivisionError" in problem] == [
                f"{'Session' if step == 'tidy' else 'The time limit of session'} 'bad' fails with ZeroDivisionError, "
                "a mistake of the daemon; its log has the details"
            ]
            assert daemon.open_room(SessionId("bad")) is not None

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    what = "session 'bad' fails" if step == "tidy" else "the time limit of session 'bad' fails"
    assert sentences(caplog, what) == [what]


def test_a_session_that_cannot_be_closed_keeps_no_other_from_its_end(own_folder, monkeypatch, caplog):
    closed: list[str] = []

    async def scenario() -> None:
        async with daemon_with_a_clock():
            async with AsyncSession("bad") as bad, AsyncSession("s") as session:
                await bad.create_cell("x")
                await session.create_cell("y")
            sound = Room.close

            def broken(room: Room) -> None:
                sound(room)
                closed.append(room.notebook_id)
                if room.notebook_id == "bad":
                    raise ZeroDivisionError("a defect")

            async def broken_too(room: Room) -> None:
                raise ZeroDivisionError("another one")

            monkeypatch.setattr(Room, "close", broken)
            monkeypatch.setattr(Room, "detach", broken_too)

    asyncio.run(scenario())
    assert closed == ["bad", "s"]
    assert sentences(caplog, "leaving") == [f"leaving session '{name}' running failed" for name in ("bad", "s")]


@pytest.fixture(scope="module")
def bystander(shared_daemon):
    with Session("bystander") as session:
        session.create_cell("x")
        yield session


@pytest.mark.parametrize("name", ["timeout_minutes", "max_duration_minutes", "keep_alive"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308])
def test_a_join_with_a_time_that_is_none_is_refused_and_the_daemon_lives(bystander, name, value):
    status = Client().status()
    channel = greeted()
    body = msgpack.packb(
        {"t": "request", "id": 1, "operation": {"op": "join", "notebook_id": "n", "ephemeral": True, name: value}}
    )
    channel.sock.sendall(struct.pack(">I", len(body)) + body)
    answer = channel.receive(deadline())
    channel.close()

    assert isinstance(answer, Refusal)
    assert answer.message.startswith("not a message: Expected `float` ")
    assert bystander.create_cell("y")
    after = Client().status()
    assert status is not None
    assert after is not None
    assert after.pid == status.pid


def test_a_number_in_use_names_no_second_request_and_streams_end_with_their_connection(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon), AsyncSession("s") as session:
            await session.create_cell("x")
            log = daemon.room("s").log
            request = Request(7, Subscribe(notebook_id="s", after=0))
            flood = codec.encode_message(Hello(PROTOCOL_VERSION, "0", "flood", None, 1))
            flood += codec.encode_message(request) * 2 * MAX_UNANSWERED
            found = await asyncio.to_thread(lambda: answers(raw(flood)))
            assert found[-1] == Refusal("Request 7 is still in flight: give each request a number of its own")
            assert [type(message) for message in found[:-1]] in ([Welcome], [Welcome, EventFrame])
            await until(lambda: log.watchers == 0, "streams outlive their connection")

            # On another connection it is the same client's, sent again.
            again = await asyncio.to_thread(greeted, "flood")
            await asyncio.to_thread(again.send, request)
            assert isinstance(await asyncio.to_thread(again.receive, deadline()), EventFrame)
            assert log.watchers == 1
            again.close()
            await until(lambda: log.watchers == 0, "streams outlive their connection")

    asyncio.run(scenario())
