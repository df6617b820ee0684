"""Operations on kernels and their environments, each with its reply."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from runtimed.models import SyncEnvironmentResult
from runtimed.protocol.bounds import Environment, Number
from runtimed.protocol.comms import CommBody
from runtimed.protocol.inherited import Inherited
from runtimed.protocol.operation import InRoom, Operation, ReplyBody, Streamed
from runtimed.protocol.replies import Done, GetResultValueReply, GetVariableReply, KernelAnswer

__all__ = [
    "AskKernel",
    "Complete",
    "DescribeProcess",
    "FrontendQuestion",
    "GetResultValue",
    "GetVariable",
    "Inspect",
    "Interrupt",
    "KernelChoice",
    "KernelDaemonOperation",
    "KernelRoomOperation",
    "PutVariable",
    "RestartKernel",
    "RestartKernelReply",
    "SendComm",
    "ShutdownKernel",
    "StartKernel",
    "StartKernelReply",
    "SyncEnvironment",
    "SyncEnvironmentReply",
    "TrustEnvironment",
    "TrustEnvironmentReply",
]


class StartKernelReply(ReplyBody, frozen=True):
    """The running kernel.

    Attributes:
        started: Whether this request started it.
        explained: Its environment and why it was chosen, for people; None if an earlier daemon started the kernel.
    """

    kernel_type: str
    env_source: str
    started: bool
    explained: str | None = None


class KernelChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The kernel that a client requests. `DescribeProcess` has what the kernel inherits from the client.

    Attributes:
        folder: The kernel's working directory, where the search for project files starts, too; None for the client's.
    """

    raw_texts: ClassVar[frozenset[str]] = frozenset({"env_source", "folder"})

    kernel_type: str = "python"
    env_source: str = "auto"
    folder: str | None = None


class DescribeProcess(Operation[Done], frozen=True, tag="describe_process"):
    """Describe the client's process, for the kernels that this connection starts. The latest description counts.

    The daemon keeps it in memory only, as long as the connection lasts.

    Attributes:
        environment: Its environment variables.
        cwd: Its working directory; None if that was deleted.
        interpreter: Path of its Python, for `env_source="current"`.
        uv: Path of the uv that it found; None if there is none.
        inherited: Other attributes that its children inherit; None for the daemon's own.
    """

    raw_texts = frozenset({"environment", "cwd", "interpreter", "uv"})

    environment: Environment = msgspec.field(default_factory=dict)
    cwd: str | None = None
    interpreter: str = ""
    uv: str | None = None
    inherited: Inherited | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<DescribeProcess cwd={self.cwd!r} interpreter={self.interpreter!r}>"


class StartKernel(Streamed[StartKernelReply], frozen=True, tag="start_kernel"):
    """Start a kernel unless one runs. Streams `EnvProgress` events before the reply.

    Attributes:
        kernel: The kernel to start.
        source: The code to run, which may declare dependencies; None if the notebook contains it.
        after: Only events with numbers above this one; None for events from now on.
    """

    needs_process = True

    kernel: KernelChoice = KernelChoice()
    source: str | None = None
    after: Number | None = None


class TrustEnvironmentReply(ReplyBody, frozen=True):
    """The environment that was consented to, for people."""

    env_source: str
    explained: str


class TrustEnvironment(InRoom[TrustEnvironmentReply], frozen=True, tag="trust_environment"):
    """Consent to installing the environment that this kernel needs, without starting the kernel."""

    needs_process = True

    kernel: KernelChoice = KernelChoice()


class RestartKernelReply(ReplyBody, frozen=True):
    """The new kernel's environment and why it was chosen, for people."""

    explained: str | None = None


class RestartKernel(InRoom[RestartKernelReply], frozen=True, tag="restart_kernel"):
    """Replace the kernel's process; the session stays active. The reply comes when the new one is ready.

    The environment is resolved again from the original request. If that fails, the present kernel runs on.
    """


class SyncEnvironmentReply(ReplyBody, frozen=True):
    """The result of `SyncEnvironment`."""

    result: SyncEnvironmentResult


class SyncEnvironment(InRoom[SyncEnvironmentReply], frozen=True, tag="sync_environment"):
    """Install the notebook's present dependencies into the running environment."""


class ShutdownKernel(InRoom[Done], frozen=True, tag="shutdown_kernel"):
    """End the kernel; the session stays active without one."""


class Interrupt(InRoom[Done], frozen=True, tag="interrupt"):
    """Interrupt the running execution. Raises NoKernel."""


class Complete(InRoom[KernelAnswer], frozen=True, tag="complete"):
    """Complete code: Jupyter's complete_request."""

    code: str
    cursor_pos: Number


class Inspect(InRoom[KernelAnswer], frozen=True, tag="inspect"):
    """Inspect an object: Jupyter's inspect_request. With a `detail_level` of 1 the answer includes its source."""

    code: str
    cursor_pos: Number
    detail_level: Number = 0


FrontendQuestion = Literal["is_complete_request", "history_request", "comm_info_request", "kernel_info_request"]
"""Requests of a frontend that execute nothing, by their Jupyter message type, beside `Complete` and `Inspect`."""


class AskKernel(InRoom[KernelAnswer], frozen=True, tag="ask_kernel"):
    """Send the kernel a frontend's request that executes nothing.

    Attributes:
        content: The message's content.

    Source: Jupyter messaging 5.5, "Messages on the shell (ROUTER/DEALER) channel".
    """

    is_free_form = True

    msg_type: FrontendQuestion
    content: dict[str, Any]


class SendComm(InRoom[Done], frozen=True, tag="send_comm"):
    """Send the kernel a comm message. Raises NoKernel.

    The kernel handles it when no cell runs, and answers with `Comm` events.
    """

    message: CommBody


class GetVariable(InRoom[GetVariableReply], frozen=True, tag="get_variable"):
    """Read a variable of the kernel as a pickle. Raises VariableNotFound, ValueRefused.

    With `arrow`, tables in it are Arrow IPC streams where the kernel has pyarrow.
    """

    name: str
    arrow: bool = False


class PutVariable(InRoom[Done], frozen=True, tag="put_variable"):
    """Set a variable of the kernel to a pickled value. Raises ValueRefused."""

    name: str
    pickled: bytes


class GetResultValue(InRoom[GetResultValueReply], frozen=True, tag="get_result_value"):
    """Read the value of an execution's last expression, while the kernel's host has it. It is never stored."""

    execution_id: str


KernelDaemonOperation = DescribeProcess
"""Operations that the daemon performs itself, without opening a room."""

KernelRoomOperation = (
    StartKernel
    | TrustEnvironment
    | RestartKernel
    | SyncEnvironment
    | ShutdownKernel
    | Interrupt
    | Complete
    | Inspect
    | AskKernel
    | SendComm
    | GetVariable
    | PutVariable
    | GetResultValue
)
"""Operations that are performed in a session's room."""
