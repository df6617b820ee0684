"""Who may talk to whom."""

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
