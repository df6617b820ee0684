"""How a connection begins: who speaks which version, and which side should be upgraded if they differ."""

from __future__ import annotations

from runtimed.protocol.messages import PROTOCOL_VERSION, Hello, Refusal, Welcome

__all__ = ["answer_hello"]


def answer_hello(hello: Hello, version: str, pid: int) -> Welcome | Refusal:
    """Accept the other side's greeting, or say which side to upgrade.

    Args:
        hello: What the connecting side sent.
        version: This side's version of runtimed.
        pid: This side's process id.
    """
    if hello.protocol == PROTOCOL_VERSION:
        return Welcome(version, pid)
    if hello.protocol < PROTOCOL_VERSION:
        advice = f"upgrade the client's runtimed ({hello.version}) to {version}"
    else:
        advice = f"upgrade the daemon's runtimed ({version}) to {hello.version} and run `runtimed restart`"
    return Refusal(
        f"The client speaks version {hello.protocol} of the protocol, the daemon version {PROTOCOL_VERSION}: {advice}"
    )
