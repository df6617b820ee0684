"""Lists of any length come in replies of bounded size, and whole; an error that is too long is told all the same."""

import asyncio

import pytest

from runtimed import AsyncClient, DaemonClient, Session
from runtimed.daemon.serving import overview
from runtimed.daemon.serving.daemon import MAX_PROBLEM
from runtimed.ids import ClientId, SessionId
from runtimed.lifecycle import Limits
from runtimed.protocol.execution_operations import ReadEvents
from runtimed.protocol.messages import Failure, Request
from runtimed.storage.audit import Actor
from tests.daemon.conftest import daemon_with_a_clock
from tests.daemon.serving.test_peers import ask, greeted

COUNT = 40


def test_a_list_of_sessions_is_given_whole_whatever_fits_into_a_reply(own_folder, monkeypatch):
    monkeypatch.setattr(overview, "REPLY_BUDGET", 10_000)
    ids = [f"{'long ' * 200}{n:02}" for n in range(COUNT)]

    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            for session_id in ids:
                clock.now += 1
                actor = Actor(ClientId("c"), label=None, uid=0, pid=None)
                daemon.registry.start(SessionId(session_id), actor, Limits())
            sessions = AsyncClient().sessions
            listed = [status.session_id for status in await sessions.list(page_size=10_000)]
            assert listed == ids[::-1]
            for size in (1, 7, 39, 40, 41):
                pages = [await sessions.list(page=page, page_size=size) for page in range(1, COUNT // size + 3)]
                assert [status.session_id for page in pages for status in page] == listed
                assert [len(page) for page in pages[:-2]] == [size] * (COUNT // size)
            assert await sessions.list(status="closed") == []

    asyncio.run(scenario())


def test_a_list_of_rooms_is_given_whole_whatever_fits_into_a_reply(own_folder, monkeypatch):
    monkeypatch.setattr(overview, "REPLY_BUDGET", 10_000)
    ids = [f"{'long ' * 200}{n:02}" for n in range(COUNT)]

    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon):
            for notebook_id in ids:
                daemon.room(notebook_id)
            rooms = await asyncio.to_thread(DaemonClient().list_rooms)
            assert [room["notebook_id"] for room in rooms] == ids
            daemon.report("x" * 10**7)
            status = await AsyncClient().status()
            assert status is not None
            assert [len(problem) for problem in status.problems] == [MAX_PROBLEM + 1]

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [10, 15 * 2**20])
def test_a_request_about_an_id_of_any_length_is_answered(data_dir, size):
    with Session("s") as session:
        session.create_cell("x")
        channel = greeted()
        answer = ask(channel, Request(1, ReadEvents(notebook_id="s", execution_id="e" * size)))
        channel.close()

    assert isinstance(answer, Failure)
    assert answer.message.startswith("Session 's' has no execution 'eee")
