"""Who may talk to whom."""

import pytest

from runtimed.protocol.handshake import check_client, check_daemon
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello


def hello(protocol: int) -> Hello:
    return Hello(protocol, "0.0.9", "client", None, 1)


def test_the_same_version_is_welcome():
    assert check_client(hello(PROTOCOL_VERSION), "0.1.0") is None
    assert check_daemon(hello(PROTOCOL_VERSION), "0.1.0") is None


def test_an_older_client_is_told_to_upgrade_itself():
    answer = check_client(hello(PROTOCOL_VERSION - 1), "0.1.0") or ""

    assert "upgrade the client's runtimed (0.0.9) to 0.1.0" in answer


def test_a_newer_client_is_told_to_upgrade_the_daemon():
    answer = check_client(hello(PROTOCOL_VERSION + 1), "0.1.0") or ""

    assert "upgrade the daemon's runtimed (0.1.0) to 0.0.9 and run `runtimed restart`" in answer


@pytest.mark.parametrize("version", [PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1])
def test_a_daemon_of_another_version_is_told_how_to_stop_the_session(version):
    answer = check_daemon(hello(version), "0.1.0") or ""

    assert answer.endswith("stop the session with the version that started it")


@pytest.mark.parametrize("client_id", ["c", "0" * 32, "a/b:c~!", "x" * 128])
@pytest.mark.parametrize("label", [None, "", "Ann's notebook 🎈.ipynb", "x" * 256])
def test_a_plain_name_is_welcome(client_id: str, label: str | None):
    greeting = Hello(PROTOCOL_VERSION, "0.0.9", client_id, label, 1)

    assert check_client(greeting, "0.1.0") is None


@pytest.mark.parametrize(
    ("client_id", "label"),
    [("", None), ("x" * 129, None), ("a b", None), ("a\n", None), ("é", None), ("c", "x" * 257), ("c", "\x1b[2J")],
)
def test_an_absurd_name_is_refused_in_a_sentence(client_id: str, label: str | None):
    answer = check_client(Hello(PROTOCOL_VERSION, "0.0.9", client_id, label, 1), "0.1.0") or ""

    assert answer.startswith(("A client id ", "A label "))
    assert answer.isprintable()
