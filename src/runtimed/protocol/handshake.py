"""How a connection begins: who speaks which version, which side should be upgraded if they differ, and who it is."""

from __future__ import annotations

from runtimed.errors import SessionError
from runtimed.ids import check_client_id, check_label
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello, Refusal, Welcome

__all__ = ["answer_hello"]


def answer_hello(hello: Hello, version: str, pid: int) -> Welcome | Refusal:
    """Accept the other side's greeting, or say which side to upgrade, or what is wrong with its name.

    Args:
        hello: What the connecting side sent.
        version: This side's version of runtimed.
        pid: This side's process id.
    """
    if hello.protocol == PROTOCOL_VERSION:
        try:
            check_client_id(hello.client_id)
            check_label(hello.label)
        except SessionError as exc:
            return Refusal(exc.message)
        return Welcome(version, pid)
    if hello.protocol < PROTOCOL_VERSION:
        advice = f"upgrade the client's runtimed ({hello.version}) to {version}"
    else:
        advice = f"upgrade the daemon's runtimed ({version}) to {hello.version} and run `runtimed restart`"
    return Refusal(
        f"The client speaks version {hello.protocol} of the protocol, the daemon version {PROTOCOL_VERSION}: {advice}"
    )
