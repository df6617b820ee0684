"""Version negotiation: decides which greetings are refused, and names the side to upgrade."""

from __future__ import annotations

from runtimed.errors import SessionError
from runtimed.ids import check_client_id, check_label
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello

__all__ = ["check_client", "check_daemon"]


def check_client(hello: Hello, version: str) -> str | None:
    """Return why the daemon refuses a client, by its protocol version, id or label; None if it is accepted.

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
    """Return why a host refuses a daemon, by its protocol version; None if it is accepted.

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
