"""Who may talk to whom."""

import pytest

from runtimed.protocol.handshake import answer_hello
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello, Refusal, Welcome


def hello(protocol: int) -> Hello:
    return Hello(protocol, "0.0.9", "client", None, 1)


def test_the_same_version_is_welcome():
    assert answer_hello(hello(PROTOCOL_VERSION), "0.1.0", 99) == Welcome("0.1.0", 99)


def test_an_older_client_is_told_to_upgrade_itself():
    answer = answer_hello(hello(PROTOCOL_VERSION - 1), "0.1.0", 99)

    assert isinstance(answer, Refusal)
    assert "upgrade the client's runtimed (0.0.9) to 0.1.0" in answer.message


def test_a_newer_client_is_told_to_upgrade_the_daemon():
    answer = answer_hello(hello(PROTOCOL_VERSION + 1), "0.1.0", 99)

    assert isinstance(answer, Refusal)
    assert "upgrade the daemon's runtimed (0.1.0) to 0.0.9 and run `runtimed restart`" in answer.message


@pytest.mark.parametrize("client_id", ["c", "0" * 32, "a/b:c~!", "x" * 128])
@pytest.mark.parametrize("label", [None, "", "Ann's notebook 🎈.ipynb", "x" * 256])
def test_a_plain_name_is_welcome(client_id: str, label: str | None):
    greeting = Hello(PROTOCOL_VERSION, "0.0.9", client_id, label, 1)

    assert answer_hello(greeting, "0.1.0", 99) == Welcome("0.1.0", 99)


@pytest.mark.parametrize(
    ("client_id", "label"),
    [("", None), ("x" * 129, None), ("a b", None), ("a\n", None), ("é", None), ("c", "x" * 257), ("c", "\x1b[2J")],
)
def test_an_absurd_name_is_refused_in_a_sentence(client_id: str, label: str | None):
    answer = answer_hello(Hello(PROTOCOL_VERSION, "0.0.9", client_id, label, 1), "0.1.0", 99)

    assert isinstance(answer, Refusal)
    assert answer.message.startswith(("A client id ", "A label "))
    assert answer.message.isprintable()
