"""The operations that a daemon can ask of a kernel's host. The kernel performs them; this module only dispatches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from runtimed.errors import ProtocolError
from runtimed.host.answers import bounded
from runtimed.host.blobs import HostBlobs
from runtimed.host.kernel import Kernel
from runtimed.host.outbox import Outbox
from runtimed.host.server import Answer, HostServer
from runtimed.protocol.host_operations import (
    AttachReply,
    Execute,
    HostBecome,
    HostFollowComms,
    HostGetResultValue,
    HostGetVariable,
    HostInput,
    HostInterrupt,
    HostOperation,
    HostPutVariable,
    HostRequest,
    HostRequestReply,
    HostRestart,
    HostSendComm,
    HostShutdown,
    HostWarm,
    KernelAsk,
)
from runtimed.protocol.replies import Done, GetResultValueReply, KernelAnswer

__all__ = ["KernelServer"]


class KernelServer(HostServer):
    """Serves the connections to the host of a kernel; the arguments are those of `HostServer`."""

    def __init__(
        self,
        epoch: str,
        kernel: Kernel,
        outbox: Outbox,
        tasks: asyncio.TaskGroup,
        daemon_changed: Callable[[], None],
        blobs: HostBlobs,
    ) -> None:
        super().__init__(epoch, kernel, outbox, tasks, daemon_changed, blobs)
        self.kernel = kernel

    def facts(self) -> AttachReply:
        """See `HostServer`."""
        return AttachReply(
            epoch=self.epoch,
            last=self.outbox.last,
            kernel_pid=self.kernel.pid,
            env_source=self.kernel.bootstrap.env_source,
            executions=self.kernel.open_executions,
        )

    def perform(self, operation: HostOperation) -> Answer:
        """See `HostServer`."""
        kernel = self.kernel
        match operation:
            case Execute():
                kernel.execute(operation)
            case HostWarm():
                return _nothing_after(kernel.warm())
            case HostBecome():
                return _nothing_after(kernel.become(operation))
            case HostInterrupt():
                kernel.interrupt()
            case HostInput(execution_id=execution_id, text=text):
                kernel.answer(execution_id, text)
            case HostRequest():
                return HostRequestReply(request=kernel.bootstrap.request, marker=kernel.bootstrap.marker)
            case HostRestart():
                return _nothing_after(kernel.restart(operation))
            case HostShutdown():
                return _nothing_after(kernel.stop())
            case KernelAsk(msg_type=msg_type, content=content):
                return _bounded(kernel.ask(msg_type, content))
            case HostSendComm(message=message):
                kernel.send_comm(message)
            case HostFollowComms(wanted=wanted):
                kernel.follow_comms(wanted=wanted)
            case HostGetVariable(name=name, arrow=arrow):
                return kernel.variables.get(name, arrow=arrow)
            case HostPutVariable(name=name, pickled=pickled):
                return kernel.variables.put(name, pickled)
            case HostGetResultValue(execution_id=execution_id):
                return GetResultValueReply(value=kernel.variables.result(execution_id))
            case _:
                raise ProtocolError(f"The host of a kernel does not know the operation {type(operation).__name__}")
        return Done()


async def _bounded(answer: Awaitable[dict[str, Any]]) -> KernelAnswer:
    return KernelAnswer(content=bounded(await answer))


async def _nothing_after(work: Awaitable[object]) -> Done:
    await work
    return Done()
