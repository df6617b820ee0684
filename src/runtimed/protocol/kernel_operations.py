"""What clients ask of the daemon about kernels, each with its reply."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from runtimed.models import SyncEnvironmentResult
from runtimed.protocol.bounds import Environment, Number
from runtimed.protocol.comms import CommBody
from runtimed.protocol.inherited import Inherited
from runtimed.protocol.operation import InRoom, Operation, ReplyBody, Streamed
from runtimed.protocol.replies import Done, GetResultValueReply, GetVariableReply, KernelAnswer

__all__ = [
    "Complete",
    "DescribeProcess",
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
    """Which kernel there is.

    Attributes:
        started: Whether this request did it.
        explained: Which environment it is and why, for people; None where an earlier daemon has started the kernel.
    """

    kernel_type: str
    env_source: str
    started: bool
    explained: str | None = None


class KernelChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which kernel a client asks for. What the kernel takes over from the client, `DescribeProcess` says.

    Attributes:
        folder: Where the kernel works, and where the search for project files begins; None for the client's folder.
    """

    raw_texts: ClassVar[frozenset[str]] = frozenset({"env_source", "folder"})

    kernel_type: str = "python"
    env_source: str = "auto"
    folder: str | None = None


class DescribeProcess(Operation[Done], frozen=True, tag="describe_process"):
    """Describe the process of the client, for the kernels that this connection starts. The latest description counts.

    The daemon keeps it in memory, as long as the connection lasts.

    Attributes:
        environment: Its environment variables.
        cwd: The folder in which it works; None if that was deleted.
        interpreter: Its Python, for `env_source="current"`.
        uv: The uv that it has found; None if it has none.
        inherited: What a child of it would have beside these; None leaves it to the daemon.
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
    """Start a kernel unless one runs. Its reply comes after `EnvProgress` events.

    Attributes:
        kernel: Which one.
        source: The code for which the kernel is needed, which may say what it needs; None if the document has it.
        after: Only events with a seq above this one; None for those from now on.
    """

    needs_process = True

    kernel: KernelChoice = KernelChoice()
    source: str | None = None
    after: Number | None = None


class TrustEnvironmentReply(ReplyBody, frozen=True):
    """What was consented to, for people."""

    env_source: str
    explained: str


class TrustEnvironment(InRoom[TrustEnvironmentReply], frozen=True, tag="trust_environment"):
    """Consent to installing what this kernel would need; nothing is started."""

    needs_process = True

    kernel: KernelChoice = KernelChoice()


class RestartKernelReply(ReplyBody, frozen=True):
    """Which environment the new kernel has and why, for people."""

    explained: str | None = None


class RestartKernel(InRoom[RestartKernelReply], frozen=True, tag="restart_kernel"):
    """Replace the kernel's process; the session stays active. The reply comes when the new one is ready.

    The environment is chosen anew, by what was asked for when the kernel was started; if it cannot be had, the kernel
    runs on.
    """


class SyncEnvironmentReply(ReplyBody, frozen=True):
    """What was done."""

    result: SyncEnvironmentResult


class SyncEnvironment(InRoom[SyncEnvironmentReply], frozen=True, tag="sync_environment"):
    """Add to the running environment what the notebook names by now."""


class ShutdownKernel(InRoom[Done], frozen=True, tag="shutdown_kernel"):
    """End the kernel and leave the session active, without one."""


class Interrupt(InRoom[Done], frozen=True, tag="interrupt"):
    """Interrupt what runs. Raises NoKernel."""


class Complete(InRoom[KernelAnswer], frozen=True, tag="complete"):
    """Ask the kernel for completions: Jupyter's complete_request."""

    code: str
    cursor_pos: Number


class Inspect(InRoom[KernelAnswer], frozen=True, tag="inspect"):
    """Ask the kernel about an object: Jupyter's inspect_request. A `detail_level` of 1 asks for its source, too."""

    code: str
    cursor_pos: Number
    detail_level: Number = 0


class SendComm(InRoom[Done], frozen=True, tag="send_comm"):
    """Send the kernel a message of a comm. It takes it when no cell runs; what it answers comes as `Comm` events.

    Raises NoKernel.
    """

    message: CommBody


class GetVariable(InRoom[GetVariableReply], frozen=True, tag="get_variable"):
    """Pickle a variable of the kernel. Raises VariableNotFound, ValueRefused."""

    name: str


class PutVariable(InRoom[Done], frozen=True, tag="put_variable"):
    """Set a variable of the kernel to a pickled value. Raises ValueRefused."""

    name: str
    pickled: bytes


class GetResultValue(InRoom[GetResultValueReply], frozen=True, tag="get_result_value"):
    """Return the value of an execution's last expression, as long as the kernel's host has it. It is never stored."""

    execution_id: str


KernelDaemonOperation = DescribeProcess
"""Those which the daemon performs itself: no room is opened for them."""

KernelRoomOperation = (
    StartKernel
    | TrustEnvironment
    | RestartKernel
    | SyncEnvironment
    | ShutdownKernel
    | Interrupt
    | Complete
    | Inspect
    | SendComm
    | GetVariable
    | PutVariable
    | GetResultValue
)
"""Those which are performed in a session's room."""
