"""The messages that follow from a session's events, one event at a time."""

from __future__ import annotations

from typing import Any

import pytest

from runtimed.display import WIDGET_MIME_TYPE
from runtimed.errors import KernelStartFailed
from runtimed.ids import SessionId
from runtimed.jupyter.proxy_kernel.messages import AskInput, Outgoing, Publish, Reply, Request
from runtimed.jupyter.proxy_kernel.naming import Choice, choose
from runtimed.jupyter.proxy_kernel.translation import Translation
from runtimed.protocol.events import (
    Display,
    EnvProgress,
    Event,
    Failed,
    Finished,
    InputRequested,
    KernelState,
    Queued,
    Started,
    Stream,
)

HEADER = {"msg_id": "e", "msg_type": "execute_request"}
OWN: dict[str, Any] = {"at": 1.0, "execution_id": "e", "cell_id": "c"}
OTHER: dict[str, Any] = {"at": 1.0, "execution_id": "o", "cell_id": "d"}
BUSY, IDLE = ("status", {"execution_state": "busy"}), ("status", {"execution_state": "idle"})


def request(**content: Any) -> Request:
    return Request("shell", [b"who"], HEADER, {}, {"code": "code", **content})


@pytest.fixture
def translation() -> Translation:
    """One whose frontend has sent the request `e`."""
    translation = Translation()
    assert translation.expect("e", request()) is None
    return translation


def published(translation: Translation, *events: Event) -> list[tuple[str, Any]]:
    return [brief(message) for event in events for message in translation.take(event)]


def brief(message: Outgoing) -> tuple[str, Any]:
    match message:
        case Publish(msg_type=msg_type, content=content):
            return msg_type, content
        case Reply(content=content):
            return "reply", content
        case AskInput(prompt=prompt):
            return "ask", prompt


def test_an_execution_that_never_begins_is_aborted(translation: Translation) -> None:
    ended = Finished(status="cancelled", **OWN)
    assert published(translation, Queued(author="me", **OWN), ended) == [BUSY, ("reply", {"status": "aborted"}), IDLE]


def test_the_reply_has_the_error_that_was_published_last(translation: Translation) -> None:
    published(translation, Started(**OWN), Failed(ename="E", evalue="v", traceback=("t",), **OWN))
    (reply, _idle) = published(translation, Finished(status="error", execution_count=7, **OWN))
    error = {"ename": "E", "evalue": "v", "traceback": ["t"]}
    assert reply[1] == {"status": "error", "execution_count": 7, "user_expressions": {}, "payload": [], **error}


def test_output_after_the_end_belongs_to_its_request(translation: Translation) -> None:
    published(translation, Finished(status="ok", **OWN))
    (message,) = translation.take(Stream(name="stdout", text="late", **OWN))
    assert isinstance(message, Publish)
    assert message.parent == HEADER


def test_an_update_that_comes_for_several_executions_is_published_once(translation: Translation) -> None:
    update = Display(kind="update_display_data", data={}, display_id="d", **OWN)
    copy = Display(kind="update_display_data", data={}, display_id="d", **OTHER)
    later = Display(kind="update_display_data", data={}, display_id="d", **{**OWN, "at": 2.0})
    assert len(published(translation, update, copy, later)) == 2


def test_a_widget_is_shown_and_not_the_hosts_picture_of_it(translation: Translation) -> None:
    widget = Display(kind="display_data", data={WIDGET_MIME_TYPE: "{}"}, display_id="IPY_MODEL_1", **OWN)
    picture = Display(kind="update_display_data", data={"text/plain": "x"}, display_id="IPY_MODEL_1", **OWN)
    assert published(translation, widget, picture) == [
        ("display_data", {"data": {WIDGET_MIME_TYPE: {}}, "metadata": {}, "transient": {}})
    ]


def test_input_is_asked_for_own_executions_alone(translation: Translation) -> None:
    assert published(translation, InputRequested(prompt="mine?", **OWN), InputRequested(prompt="whose?", **OTHER)) == [
        ("ask", "mine?")
    ]


def test_other_clients_have_headers_of_their_own(translation: Translation) -> None:
    first = list(translation.take(Queued(author="ann", **OTHER)))
    messages = [*first, *translation.take(Started(execution_count=3, **OTHER), "theirs")]
    assert [brief(message) for message in messages] == [
        BUSY,
        ("execute_input", {"code": "theirs", "execution_count": 3}),
    ]
    assert {str(message.parent["session"]) for message in messages if isinstance(message, Publish)} == {"ann"}


def test_a_kernel_that_is_replaced_is_not_reported_dead(translation: Translation) -> None:
    states = [KernelState(at=1.0, status="restarting"), KernelState(at=1.0, status="idle")]
    assert published(translation, *states) == [("status", {"execution_state": "starting"}), IDLE]


def test_the_kernels_states_around_each_execution_are_published_once(translation: Translation) -> None:
    states = [KernelState(at=1.0, status=status) for status in ("starting", "idle", "busy", "idle", "starting", "idle")]
    assert published(translation, *states) == [IDLE, IDLE]


def test_the_making_of_an_environment_shows_in_the_first_cell(translation: Translation) -> None:
    steps = [EnvProgress(at=1.0, step="install", message=message) for message in ("a", "a", "b")]
    assert published(translation, *steps) == [
        BUSY,
        ("stream", {"name": "stderr", "text": "a\n"}),
        ("stream", {"name": "stderr", "text": "b\n"}),
    ]


def test_what_the_session_does_not_take_ends_with_its_error(translation: Translation) -> None:
    assert translation.expect("f", request()) == "e", "the one before it"
    messages = [brief(message) for message in translation.lost(KernelStartFailed("no"))]
    error = {"ename": "KernelStartFailed", "evalue": "no", "traceback": ["KernelStartFailed: no"]}
    assert messages == 2 * [BUSY, ("error", error), ("reply", {"status": "error", **error}), IDLE]
    assert translation.expect("g", request()) is None


def test_a_silent_execution_shows_no_input() -> None:
    translation = Translation()
    translation.expect("e", request(silent=True))
    assert published(translation, Started(**OWN)) == [BUSY]


def test_the_session_is_the_given_one_else_the_notebooks_else_one_of_the_connection() -> None:
    environment = {"RUNTIMED_NOTEBOOK_ID": "named", "JPY_SESSION_NAME": "/no/where.ipynb"}
    assert choose("given", environment, ("f", "k")).session_id == "given"
    assert choose(None, environment, ("f", "k")).session_id == "named"
    del environment["RUNTIMED_NOTEBOOK_ID"]
    assert choose(None, environment, ("f", "k")).session_id == "/no/where.ipynb"
    new = choose(None, {}, ("f", "k"))
    assert new == Choice(SessionId(new.session_id), None, is_new=True)
    assert new == choose(None, {}, ("f", "k")) != choose(None, {}, ("f", "other"))
