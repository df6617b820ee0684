"""Iterating over what comes in pages: sessions, cells, outputs, the log, profiles; on both faces."""

import itertools

import pytest

from runtimed import NotConnected, RuntimedError, SessionNotFound


def test_cells_come_one_after_another_with_or_without_outputs(with_kernel):
    result = with_kernel.run("print('shown')")
    cells = with_kernel.get_cells()
    assert list(with_kernel.iter_cells()) == cells
    bare = list(with_kernel.iter_cells(outputs=False))
    assert [(cell.id, cell.source) for cell in bare] == [(cell.id, cell.source) for cell in cells]
    assert bare == with_kernel.get_cells(outputs=False)
    assert {cell.outputs for cell in bare} == {()}

    last = with_kernel.get_cell(result.cell_id, outputs=False)
    assert (last.execution_id, last.outputs) == (result.execution_id, ())
    assert with_kernel.get_cell(result.cell_id).outputs == result.outputs


def test_an_iteration_needs_a_session_that_is_joined(face):
    with pytest.raises(NotConnected):
        face.session("never joined").iter_cells()


def test_a_cell_is_made_under_an_id_of_ones_own(session):
    assert session.create_cell("1", cell_id="from-a-file") == "from-a-file"
    assert session.get_cell_source("from-a-file") == "1"


def test_outputs_of_an_execution_come_one_after_another(with_kernel):
    execution = with_kernel.submit(code="print('a'); display('b'); print('c')")
    execution.wait()
    assert [output.text or output.data["text/plain"] for output in execution.outputs()] == ["a\n", "'b'", "c\n"]


def test_a_client_iterates_over_all_sessions(face, with_kernel):
    client = face.client()
    listed = [status.session_id for status in client.sessions.list(page_size=10_000)]
    assert [status.session_id for status in client.sessions] == listed
    assert with_kernel.notebook_id in listed
    active = [status.session_id for status in client.sessions.iter(status="active", kind="kernel")]
    assert with_kernel.notebook_id in active
    assert list(client.sessions.iter(kind="browser")) == []
    with pytest.raises(ValueError, match="kind is kernel, browser or None"):
        client.sessions.iter(kind="car")
    assert list(client.profiles) == client.profiles.list() == []


def test_ids_are_found_by_what_they_begin_with(face, with_kernel):
    client = face.client()
    assert client.sessions.find("with a ker") == [with_kernel.notebook_id]
    assert client.sessions.find("with a ker", status="closed") == client.sessions.find("none such") == []
    assert with_kernel.notebook_id in client.sessions.find()


def test_the_log_of_a_session_comes_entry_by_entry(face, with_kernel):
    client, name = face.client(), with_kernel.notebook_id
    entries = list(client.sessions.iter_log(name))
    assert entries == client.sessions.log(name, page_size=1000)
    assert list(itertools.islice(client.sessions.iter_log(name), 2)) == entries[:2]
    with pytest.raises(SessionNotFound):
        list(client.sessions.iter_log("never started"))


def test_cells_and_executions_are_found_without_joining_the_session(face, with_kernel):
    client, name = face.client(), with_kernel.notebook_id
    result = with_kernel.run("1 + 1")
    assert client.sessions.find_cells(name) == with_kernel.get_cell_ids()
    assert client.sessions.find_cells(name, result.cell_id[:12])[-1] == result.cell_id
    with pytest.raises(SessionNotFound):
        client.sessions.find_cells("never started")

    (found,) = client.sessions.find_executions(name, result.execution_id)
    assert (found.execution_id, found.cell_id, found.status) == (result.execution_id, result.cell_id, "ok")
    assert (found.queued_at <= found.started_at <= found.ended_at, found.client_id) == (True, with_kernel.client_id)
    assert client.sessions.find_executions(name, "")[0] == found, "the latest comes first"
    assert client.sessions.find_executions(name) == [], "nothing runs"
    with pytest.raises(SessionNotFound):
        client.sessions.find_executions("never started")


def test_stopping_an_id_that_never_was_is_refused_by_the_list_and_not_by_a_handle(face):
    client = face.client()
    with pytest.raises(SessionNotFound):
        client.sessions.stop("never started")
    with face.session("never started") as session:
        session.stop()
    with face.session() as session:
        session.create_cell("1")
        client.sessions.stop(session.notebook_id)
        client.sessions.stop(session.notebook_id)
        assert session.status().status == "closed"


def test_a_session_s_kernel_answers_a_client_that_has_not_joined(face, with_kernel):
    client, name = face.client(), with_kernel.notebook_id
    with_kernel.run("remarkable = 1")
    assert client.sessions.complete(name, "remarkab")["matches"] == ["remarkable"]
    assert client.sessions.inspect(name, "remarkable")["found"]
    with pytest.raises(RuntimedError):
        client.sessions.complete("never started", "x")
