"""Messages of comms, both ways, with their buffers: what a frontend needs that shows a session's widgets."""

import json
import math
import threading
from typing import Any

import pytest

from runtimed import Client, CommMessage, InvalidArgument, NoKernel
from runtimed.protocol.events import Comm, Display, Finished, InputRequested
from tests.client.faces import AsyncFace, SyncFace
from tests.conftest import wait_until

SLIDER = """
import ipywidgets
slider = ipywidgets.IntSlider(max=1000)
slider.observe(lambda change: print('moved to', change.new), 'value')
slider.comm.comm_id
"""
MIRROR = """
def opened(comm, message):
    comm.on_msg(lambda told: comm.send(
        {"size": sum(map(len, told["buffers"])), "data": told["content"]["data"]},
        metadata={"of": told["metadata"]},
        buffers=[bytes(buffer)[::-1] for buffer in told["buffers"]],
    ))
    comm.send({"opened": message["content"]["data"]})
get_ipython().kernel.comm_manager.register_target("mirror", opened)
"""
BURST = """
def burst(comm, message):
    global all_sent
    for n in range(60):
        comm.send(n, buffers=[bytes(2**20)])
    all_sent = True
get_ipython().kernel.comm_manager.register_target("burst", burst)
"""


def following(session, *types):
    """Return the events that come from now on. They come live, and so from the first one that is taken."""
    events = session.subscribe(event_types=["comm", "execution_started", *types])
    session.run("pass")
    assert next(events).event_type == "execution_started"
    return events


def comms(session):
    return (event.comm for event in following(session) if event.comm is not None)


OPEN = "from comm import create_comm\nopened = create_comm(target_name='x')"
"""Code that makes the kernel send one message."""


CAPTURED = """
import ipywidgets, os, time
box = ipywidgets.Output()
display(box)
with box:
    print('in the box')
    while not os.path.exists({gate!r}): time.sleep(0.01)
"""


def test_the_content_of_an_output_widget_is_told_before_the_cell_ends(with_kernel, face, tmp_path):
    gate = tmp_path / "gate"
    told = comms(with_kernel)
    running = with_kernel.submit(code=CAPTURED.format(gate=str(gate)))
    states = (comm.content["data"].get("state", {}) for comm in told if comm.msg_type == "comm_msg")
    outputs = next(state["outputs"] for state in states if state.get("outputs"))
    assert outputs == [{"output_type": "stream", "name": "stdout", "text": "in the box\n"}]
    gate.touch()
    assert running.wait().success


ORDERED = """
from comm import create_comm
from IPython.display import display
comm = create_comm(target_name='ordered')
for n in range(50):
    display(n)
    comm.send(n)
"""


def test_messages_of_comms_and_outputs_keep_their_order(with_kernel):
    events = with_kernel.raw_events()
    running = with_kernel.submit(code="input();")
    next(event for event in events if isinstance(event, InputRequested))  # the messages are followed from now on
    running.answer("")
    with_kernel.run(ORDERED)
    found = []
    for event in events:
        match event:
            case Display(data=data):
                found.append(int(data["text/plain"]))
            case Comm(message=message) if message.msg_type == "comm_msg":
                found.append(json.loads(message.content)["data"])
            case Finished() if found:
                break
    assert found == sorted([*range(50), *range(50)])


def test_what_a_message_causes_names_it(with_kernel):
    events = with_kernel.raw_events()
    with_kernel.run(MIRROR)
    next(event for event in events if isinstance(event, Finished))
    with_kernel.send_comm("comm_open", {"comm_id": "n", "target_name": "mirror", "data": 1}, request_id="my message")
    assert next(event for event in events if isinstance(event, Comm)).message.request_id == "my message"


def test_a_slider_that_a_client_moves_calls_back_and_tells_of_it(with_kernel):
    comm_id = with_kernel.run(SLIDER).value
    events = following(with_kernel, "output")
    told = {"method": "update", "state": {"value": 42}, "buffer_paths": []}
    with_kernel.send_comm("comm_msg", {"comm_id": comm_id, "data": told})

    seen, states = [], []
    for event in events:
        if event.comm is None:
            seen.append(event.output.text)
        elif event.comm.content["comm_id"] == comm_id:
            states.append(event.comm.content["data"].get("state"))
        if "".join(seen) == "moved to 42\n" and states:
            break
    assert {"value": 42} in states
    assert with_kernel.run("slider.value").value == 42
    assert with_kernel.run("slider.value = 7").success
    quiet = with_kernel.subscribe()
    with_kernel.run("slider.value = 8")
    types = []
    for event in quiet:
        types.append(event.event_type)
        if event.event_type == "done":
            break
    assert "comm" not in types, "who does not name them gets none"


def test_buffers_and_metadata_travel_both_ways(with_kernel):
    with_kernel.run(MIRROR)
    heard = comms(with_kernel)
    buffers = [bytes(range(256)) * 8000, b"", b"\xff\x00"]
    with_kernel.send_comm("comm_open", {"comm_id": "m", "target_name": "mirror", "data": {"a": [1, None, "é\ud800"]}})
    with_kernel.send_comm("comm_msg", {"comm_id": "m", "data": 1.5}, metadata={"m": 1}, buffers=buffers)

    opened = CommMessage(msg_type="comm_msg", content={"comm_id": "m", "data": {"opened": {"a": [1, None, "é\ud800"]}}})
    assert next(heard) == opened
    assert next(heard) == CommMessage(
        msg_type="comm_msg",
        content={"comm_id": "m", "data": {"size": sum(map(len, buffers)), "data": 1.5}},
        metadata={"of": {"m": 1}},
        buffers=tuple(buffer[::-1] for buffer in buffers),
    )
    heard.close()


def test_what_is_too_large_is_told_of_and_the_rest_comes(with_kernel):
    events = following(with_kernel)
    code = "from comm import create_comm\nlarge = create_comm(target_name='x', comm_id='x')\n"
    with_kernel.run(f"{code}large.send({{}}, buffers=[bytes(15 * 2**20)])")
    heard = (event for event in events if event.event_type.startswith("comm"))
    assert next(heard).comm.msg_type == "comm_open"
    missed = next(heard)
    with_kernel.run("large.send({}, buffers=[bytes(14 * 2**20)])")
    assert next(heard).comm.buffers == (bytes(14 * 2**20),)
    assert (missed.event_type, missed.missed, missed.comm) == ("comms_missed", 1, None)
    assert f"has {15 * 2**20 + 30} bytes; the limit is {15 * 2**20}" in missed.message
    events.close()
    with pytest.raises(InvalidArgument, match="at most 16776192 fit into a message"):
        with_kernel.send_comm("comm_msg", {"comm_id": "x"}, buffers=[bytes(16 * 2**20)])


def test_a_slow_reader_is_told_how_many_it_has_missed(face, with_kernel):
    with_kernel.run(BURST)
    events = following(with_kernel)
    with_kernel.send_comm("comm_open", {"comm_id": f"b {face.name}", "target_name": "burst", "data": {}})
    wait_until(lambda: with_kernel.complete("all_sen")["matches"], "it sends no end")
    heard, missed = [], []
    for event in events:
        if event.event_type == "comms_missed":
            missed.append(event)
        elif event.comm is not None:
            heard.append(event.comm.content["data"])
        if len(heard) + sum(event.missed for event in missed) >= 60:
            break
    assert missed
    assert {event.message for event in missed} == {None}
    assert len(heard) + sum(event.missed for event in missed) == 60
    assert heard[:2] == [0, 1]
    with_kernel.run(OPEN)
    assert next(event.comm.msg_type for event in events if event.comm is not None) == "comm_open"
    events.close()


def test_what_is_no_message_of_a_comm_is_refused_and_so_is_one_without_a_kernel(with_kernel, session):
    wrong: dict[str, dict[str, Any]] = {
        "content is a dict of JSON values: Object of type object": {"content": {"comm_id": "m", "data": object()}},
        "content is a dict of JSON values; not 5": {"content": 5},
        "content has the comm_id, a str; not None": {"content": {}},
        "msg_type is comm_open, comm_msg or comm_close; not 'comm_mistake'": {"msg_type": "comm_mistake"},
        "metadata is a dict of JSON values: Out of range": {"metadata": {"a": math.nan}},
        "buffers is a list of bytes; not b'ab'": {"buffers": b"ab"},
        "a buffer must be bytes, not int": {"buffers": [10]},
    }
    for sentence, arguments in wrong.items():
        with pytest.raises(InvalidArgument, match=f"^{sentence}"):
            with_kernel.send_comm(**{"msg_type": "comm_msg", "content": {"comm_id": "m"}} | arguments)
    with pytest.raises(NoKernel):
        session.send_comm("comm_msg", {"comm_id": "m", "data": {}})


@pytest.mark.parametrize("kind", [SyncFace, AsyncFace])
def test_messages_come_again_after_a_restart_of_the_daemon_and_some_may_be_missing(data_dir, kind):
    face = kind()
    with face.session("restarted") as session:
        events, ended = following(session), threading.Event()
        heard = (event for event in events if event.event_type.startswith("comm"))
        Client().shutdown(keep_kernels=True)

        def open_comms():
            # Until the stream follows the next daemon.
            while not ended.is_set():
                session.run(OPEN)

        opening = threading.Thread(target=open_comms)
        opening.start()
        gap = next(event for event in heard if event.comm is None)  # the first daemon may tell of some while it ends
        assert (gap.event_type, gap.missed, gap.message) == ("comms_missed", None, None)
        assert next(event.comm.msg_type for event in heard if event.comm is not None) == "comm_open"
        ended.set()
        opening.join()
        events.close()
        session.stop()
    face.close()
