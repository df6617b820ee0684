"""The frames of a WebSocket that passes through the relay."""

import pytest

from runtimed.browser import websocket
from runtimed.browser.websocket import Frames, client_frame, server_frame


def frame(payload, opcode=1, *, fin=True, mask=b""):
    """One frame, as RFC 6455 has it."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 2**16 else b"\x7f" + size.to_bytes(8)
    head = bytes([fin * 0x80 | opcode, length[0] | (0x80 if mask else 0)]) + length[1:]
    return head + mask + bytes(byte ^ mask[n % 4] if mask else byte for n, byte in enumerate(payload))


def pass_through(frames, data, size):
    pieces = []
    for start in range(0, len(data), size):
        pieces += frames.receive_data(data[start : start + size])
    return pieces


PING = frame(b"ping", 9)
MESSAGES = [
    (frame(b"one"), b"one"),
    (frame(b"t", fin=False) + frame(b"w", 0, fin=False) + frame(b"o", 0, mask=b"mask"), b"two"),
    (frame(b"\xff\x00", 2), None),
    (frame(b"x" * 200, mask=b"\x01\x02\x03\x04"), b"x" * 200),
    (frame(b"y" * 70_000), b"y" * 70_000),
    (frame(b""), b""),
    (frame(b"\x03\xe8", 8), None),
]


@pytest.mark.parametrize("size", [1, 3, 7, 100, 10**6])
def test_messages_are_read_however_they_are_chopped(size):
    pieces = pass_through(Frames(), b"".join(raw for raw, _ in MESSAGES), size)

    assert [(piece.raw, piece.text) for piece in pieces] == MESSAGES


@pytest.mark.parametrize("size", [1, 3, 10, 10**6])
def test_a_ping_amid_a_message_and_a_message_that_is_too_long_pass_as_they_are(size, monkeypatch):
    monkeypatch.setattr(websocket, "MAX_READ", 20)
    long = frame(b"a" * 15, fin=False) + PING + frame(b"b" * 30, 0, fin=False) + frame(b"", 0, fin=False)
    long += PING + frame(b"c" * 3, 0)
    frames = Frames()
    pieces = pass_through(frames, long + frame(b"next"), size)

    # The ping overtakes what waits for the rest of its message.
    assert b"".join(piece.raw for piece in pieces).replace(PING, b"") == (long + frame(b"next")).replace(PING, b"")
    assert b"".join(piece.raw for piece in pieces).count(PING) == 2
    assert [piece.text for piece in pieces if piece.text is not None] == [b"next"]
    assert frames.between


def test_nothing_is_said_amid_a_message_that_passes_unread(monkeypatch):
    monkeypatch.setattr(websocket, "MAX_READ", 20)
    frames = Frames()
    states = []
    for data in (frame(b"a" * 30, fin=False)[:10], frame(b"a" * 30, fin=False)[10:], frame(b"", 0), frame(b"short")):
        list(frames.receive_data(data))
        states.append(frames.between)

    assert states == [False, False, True, True]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_what_is_made_here_is_read_back(size):
    text = bytes(n % 256 for n in range(size))
    for make in (client_frame, server_frame):
        (piece,) = Frames().receive_data(make(text))
        assert (piece.raw[1] & 0x80 != 0, piece.text) == (make is client_frame, text)
