"""Questions to a kernel beside the executions: completions, inspections, …; answered during a cell if possible."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from runtimed.errors import NoKernel, RuntimedError
from runtimed.host.wire import ChannelName, KernelMessage, Wire

__all__ = ["ASK_TIMEOUT", "Questions"]

ASK_TIMEOUT: Final = 10.0
"""Seconds within which an answer must arrive."""


class Questions:
    """The questions to one kernel process.

    Args:
        wire: The channels to it.
        has_subshells: Whether it answers in a subshell, a thread of its own; else questions wait for the cell to end.
    """

    def __init__(self, wire: Wire, *, has_subshells: bool) -> None:
        self._wire = wire
        self._has_subshells = has_subshells
        self._subshell: asyncio.Future[str | None] | None = None
        self._open: dict[str, asyncio.Future[Any]] = {}

    async def ask(self, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask, and return the content of the reply.

        Raises:
            NoKernel: If the kernel ends meanwhile.
            RuntimedError: If it does not answer in time.
        """
        subshell_id = await self._subshell_id()
        try:
            return await self._ask("shell", msg_type, content, subshell_id)
        except TimeoutError:
            self._subshell = None  # it may hang for good; the next question gets a new one
            raise RuntimedError(
                f"The kernel did not answer within {ASK_TIMEOUT:.0f} seconds; "
                + ("it may be busy" if subshell_id is not None else "this kernel answers only when no cell runs")
            ) from None

    def answered(self, message: KernelMessage) -> None:
        """Take a reply, if it answers a question."""
        question = self._open.get(message["parent_id"])
        if question is not None and not question.done():
            question.set_result(message["content"])

    def close(self, reason: str) -> None:
        """Fail all open questions: the kernel is gone."""
        for question in self._open.values():
            if not question.done():
                question.set_exception(NoKernel(f"{reason} before it answered"))

    async def _subshell_id(self) -> str | None:
        if not self._has_subshells:
            return None
        if self._subshell is None:
            self._subshell = asyncio.ensure_future(self._create_subshell())
        return await asyncio.shield(self._subshell)

    async def _create_subshell(self) -> str | None:
        try:
            reply = await self._ask("control", "create_subshell_request", {}, None)
        except (TimeoutError, NoKernel):
            return None
        subshell_id = reply.get("subshell_id")
        return subshell_id if isinstance(subshell_id, str) else None

    async def _ask(
        self, channel: ChannelName, msg_type: str, content: dict[str, Any], subshell_id: str | None
    ) -> dict[str, Any]:
        msg_id = self._wire.send(channel, msg_type, content, subshell_id=subshell_id)
        question = self._open[msg_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                reply = await question
        finally:
            self._open.pop(msg_id, None)
        return reply if isinstance(reply, dict) else {}
