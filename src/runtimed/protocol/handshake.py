"""Decides which greetings are refused: other versions, with the side to upgrade, and invalid names."""

from __future__ import annotations

from runtimed.errors import SessionError
from runtimed.ids import check_client_id, check_label
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello

__all__ = ["check_client", "check_daemon"]


def check_client(hello: Hello, version: str) -> str | None:
    """Return which side to upgrade, or what is wrong with a client's name; None if the daemon can serve it.

    Args:
        hello: The client's greeting.
        version: The daemon's version of runtimed.
    """
    if hello.protocol == PROTOCOL_VERSION:
        try:
            check_client_id(hello.client_id)
            check_label(hello.label)
        except SessionError as exc:
            return exc.message
        return None
    if hello.protocol < PROTOCOL_VERSION:
        advice = f"upgrade the client's runtimed ({hello.version}) to {version}"
    else:
        advice = f"upgrade the daemon's runtimed ({version}) to {hello.version} and run `runtimed restart`"
    return (
        f"The client speaks version {hello.protocol} of the protocol, the daemon version {PROTOCOL_VERSION}: {advice}"
    )


def check_daemon(hello: Hello, version: str) -> str | None:
    """Return a sentence if a daemon speaks another version than this host; None if the host can serve it.

    Args:
        hello: The daemon's greeting.
        version: The host's version of runtimed.
    """
    if hello.protocol == PROTOCOL_VERSION:
        return None
    return (
        f"This host of runtimed {version} speaks protocol {PROTOCOL_VERSION}, the daemon of runtimed {hello.version} "
        f"speaks {hello.protocol}; stop the session with the version that started it"
    )
