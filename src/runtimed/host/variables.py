"""The variables of a Python kernel, and the values of its latest results: pickled, in memory only, never stored."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from cachetools import FIFOCache

from runtimed.display import readable_size
from runtimed.errors import RuntimedError, ValueRefused, VariableNotFound
from runtimed.kernel_launcher.values import GET_REQUEST, MAX_RESULT, MAX_VALUE, PUT_REQUEST, RESULT_KEY
from runtimed.protocol.replies import Done, GetVariableReply

__all__ = ["MAX_RESULTS", "Ask", "Results", "Variables"]

MAX_RESULTS: Final = 32
"""Number of results whose values are kept; the oldest is evicted. With the largest values that is 8 MiB."""

Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Sends a request to the kernel, and returns the content of its reply."""


class Results:
    """The pickled values of the latest results."""

    def __init__(self) -> None:
        self._values: FIFOCache[str, bytes] = FIFOCache(MAX_RESULTS)

    def take(self, execution_id: str | None, content: object) -> None:
        """Take the value out of the content of an execute_result, so that it is not stored."""
        metadata = content.get("metadata") if isinstance(content, dict) else None
        text = metadata.pop(RESULT_KEY, None) if isinstance(metadata, dict) else None
        if execution_id is None or not isinstance(text, str) or len(text) > 2 * MAX_RESULT:
            return
        try:
            value = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return
        self._values[execution_id] = value

    def get(self, execution_id: str) -> bytes | None:
        """Return the value of an execution's last expression; None if it is not kept, or was not plain and small."""
        return self._values.get(execution_id)


class Variables:
    """Gets and sets the variables of a kernel.

    Args:
        ask: Sends a request to the kernel.
        is_ours: Whether our launcher started the kernel, and answers.
        results: The values of results.
    """

    def __init__(self, ask: Ask, is_ours: Callable[[], bool], results: Results) -> None:
        self._ask = ask
        self._is_ours = is_ours
        self._results = results

    def result(self, execution_id: str) -> bytes | None:
        """See `Results.get`."""
        return self._results.get(execution_id)

    async def get(self, name: str, *, arrow: bool) -> GetVariableReply:
        """Return the variable's pickle.

        Args:
            name: Name of the variable.
            arrow: Whether tables become Arrow IPC streams.

        Raises:
            VariableNotFound: If there is none.
            ValueRefused: If it is too large, or cannot be pickled.
            RuntimedError: If this kernel does not answer, or cannot.
        """
        self._check()
        reply = await self._ask(GET_REQUEST, {"name": name, "arrow": arrow})
        _check(name, reply)
        return GetVariableReply(value=base64.b64decode(reply["value"]))

    async def put(self, name: str, pickled: bytes) -> Done:
        """Set a variable. Raises what `get` raises."""
        self._check()
        _check(name, await self._ask(PUT_REQUEST, {"name": name, "value": base64.b64encode(pickled).decode("ascii")}))
        return Done()

    def _check(self) -> None:
        if not self._is_ours():
            raise RuntimedError("Variables are those of Python kernels: this session's kernel is another one")


def _check(name: str, reply: Mapping[str, Any]) -> None:
    if reply.get("status") == "ok":
        return
    match reply.get("error"):
        case "unknown":
            raise VariableNotFound(f"The kernel has no variable {name!r}", variable=name)
        case "too large":
            sentence = (
                f"The variable {name!r} takes more than {readable_size(MAX_VALUE)} when it is pickled; let the kernel "
                "write it into a file"
            )
        case _:
            sentence = f"The variable {name!r} cannot be handed over: {reply.get('reason') or reply.get('evalue')}"
    raise ValueRefused(sentence, variable=name)
