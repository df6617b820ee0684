"""The version of runtimed, and the note for a client and a daemon that differ. Nothing here does I/O."""

import re

__all__ = ["__version__", "version_note"]

__version__ = "0.1.0"


def version_note(daemon: str, client: str = __version__) -> str | None:
    """Return a note if the daemon has another version than its client, else None.

    Args:
        daemon: The version of the daemon.
        client: The version of the client.
    """
    if daemon == client:
        return None
    there, here = _release(daemon), _release(client)
    if there > here:
        return f"The daemon is runtimed {daemon}, newer than this client's {client}: upgrade the client"
    how = "older than" if there < here else "not"
    return (
        f"The daemon is runtimed {daemon}, {how} this client's {client}: `runtimed restart` replaces it, and kernels "
        "live on"
    )


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers with which a version begins. Source: PEP 440, release segment."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    numbers = [int(number) for number in found[1].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
