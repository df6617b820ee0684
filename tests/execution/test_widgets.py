"""Widgets are followed within bounds, whatever a kernel says of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.display import WIDGET_MIME_TYPE
from runtimed.errors import StorageError
from runtimed.execution import widgets
from runtimed.execution.jupyter_messages import Origin
from runtimed.execution.widget_text import BOXES, KINDS
from runtimed.execution.widgets import MAX_CONTENT, Widgets
from runtimed.protocol.events import Display


def opened(comm_id: str, kind: str, **state: Any) -> dict[str, Any]:
    module = "@jupyter-widgets/output" if kind == "OutputModel" else "@jupyter-widgets/controls"
    data = {"state": {"_model_name": kind, "_model_module": module, **state}}
    return {"msg_type": "comm_open", "content": {"comm_id": comm_id, "target_name": "jupyter.widget", "data": data}}


def changed(comm_id: str, **state: Any) -> dict[str, Any]:
    return {"msg_type": "comm_msg", "content": {"comm_id": comm_id, "data": {"method": "update", "state": state}}}


def printed(text: str, parent_id: str = "e") -> dict[str, Any]:
    return {"msg_type": "stream", "parent_id": parent_id, "content": {"name": "stdout", "text": text}}


def cleared(*, wait: bool) -> dict[str, Any]:
    return {"msg_type": "clear_output", "parent_id": "e", "content": {"wait": wait}}


def keep(_value: bytes) -> str:
    return "0" * 64


def shown(found: Widgets, comm_id: str) -> None:
    found.show(Display(at=0.0, execution_id="e", kind="display_data", data={WIDGET_MIME_TYPE: {"model_id": comm_id}}))


def texts(found: Widgets) -> list[Any]:
    return [event.data["text/plain"] for event in found.updates(Origin, keep) if isinstance(event, Display)]  # type: ignore[arg-type]  # the time does not matter


def following(*messages: dict[str, Any]) -> Widgets:
    found = Widgets()
    for message in messages:
        found.follow(message, "e")
    return found


def test_an_update_that_cannot_be_stored_comes_again() -> None:
    def full(_value: bytes) -> str:
        raise StorageError("no room")

    found = following(opened("o", "OutputModel"))
    shown(found, "o")
    found.follow(changed("o", msg_id="e"), "e")
    found.capture(printed("x" * 2_000_000), 0.0, "e")
    with pytest.raises(StorageError):
        found.updates(lambda execution_id: Origin(0.0, execution_id), full)
    assert len(texts(found)) == 1
    assert (texts(found), found.due_in) == ([], None)


def test_an_output_widget_holds_so_much_and_says_what_it_left_out() -> None:
    found = following(opened("o", "OutputModel", msg_id="e"))
    shown(found, "o")
    for _ in range(3):
        found.capture(printed("x" * (MAX_CONTENT // 2)), 0.0, "e")
    (text,) = texts(found)
    assert text["size"] < MAX_CONTENT  # a blob
    found.capture(cleared(wait=True), 0.0, "e")
    found.capture(printed("fresh"), 0.0, "e")
    assert texts(found) == ["fresh"]
    found.capture(printed("x" * MAX_CONTENT), 0.0, "e")
    assert texts(found)[0].startswith("fresh\n[")
    assert texts(found) == []
    found.capture(cleared(wait=False), 0.0, "e")
    assert texts(found) == [""]


def test_clearing_again_and_again_fills_nothing() -> None:
    found = following(opened("o", "OutputModel", msg_id="e"))
    shown(found, "o")
    for number in range(50):
        found.capture(cleared(wait=True), 0.0, "e")
        found.capture(printed(f"{number}" + "x" * (MAX_CONTENT // 10)), 0.0, "e")
    assert found.due_in == widgets.INTERVAL
    texts(found)
    assert [message["comm_id"] for message in found.news_for_kernel()] == ["o"]
    assert found.news_for_kernel() == []


def test_the_widgets_that_stood_still_for_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widgets, "MAX_MODELS", 3)
    found = following(opened("o", "OutputModel", msg_id="e"), opened("a", "LabelModel", value="a"))
    shown(found, "a")
    for name in ("b", "c", "d"):
        found.follow(opened(name, "LabelModel", value=name), "e")
        shown(found, name)
    found.follow(changed("a", value="new"), "e")
    found.follow(changed("d", value="new"), "e")
    assert texts(found) == ["new"]
    assert found.captures("e")  # one that takes output is needed as long as it does


def test_what_all_hold_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widgets, "MAX_STATE", 50_000)
    found = following(*(opened(f"{number}", "TextModel", value="x" * 9000) for number in range(100)))
    shown(found, "99")
    found.follow(changed("99", value="y" * 100_000), "e")
    assert [len(text) for text in texts(found)] == [10_001]
    found.follow(changed("0", value="z"), "e")
    assert found.due_in is None


def test_widgets_that_hold_each_other_end() -> None:
    found = following(
        opened("a", "VBoxModel", children=["IPY_MODEL_b"]),
        opened("b", "VBoxModel", children=["IPY_MODEL_a", "IPY_MODEL_c"]),
    )
    found.follow(opened("c", "LabelModel", value="end"), "e")
    found.follow(changed("b", children=["IPY_MODEL_a", "IPY_MODEL_c"]), "e")
    found.follow(changed("a", children=["IPY_MODEL_b"]), "e")
    shown(found, "a")
    found.follow(changed("c", value="End"), "e")
    assert set(texts(found)[0].splitlines()) == {"End"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(["IPY_MODEL_a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from([*sorted(widgets.KEPT), "msg_id", "outputs"])


@given(st.sampled_from([*KINDS, *BOXES, "OutputModel", "LayoutModel", "?"]), st.dictionaries(KEYS, JSON), JSON)
def test_nothing_that_a_kernel_says_of_a_widget_harms(kind: str, state: dict[str, Any], odd: Any) -> None:
    found = following(opened("a", kind))
    shown(found, "a")
    found.follow(changed("a", **state), None)
    for message in (
        {"msg_type": "comm_msg", "content": odd},
        {"msg_type": "comm_msg", "content": {"comm_id": "a", "data": odd}},
        {"msg_type": "comm_open", "content": {"comm_id": "b", "target_name": "jupyter.widget", "data": {"state": odd}}},
        {"msg_type": "comm_close", "content": {"comm_id": odd}},
    ):
        found.follow(message, None)
    found.show(Display(at=0.0, execution_id="e", kind="display_data", data={WIDGET_MIME_TYPE: "{"}))
    assert all(isinstance(text, str) for text in texts(found))
    found.news_for_kernel()
