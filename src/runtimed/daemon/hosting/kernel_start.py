"""How the host of a kernel is started, a session's or a spare's. Nothing here decides on an environment."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from runtimed.daemon.hosting.launcher import Owner, Place
from runtimed.environments.kinds import Kind, kind_of
from runtimed.environments.maker import Prepared
from runtimed.errors import KernelStartFailed
from runtimed.host.bootstrap import Bootstrap
from runtimed.ids import HostEpoch, SessionId
from runtimed.protocol.bounds import Environment
from runtimed.protocol.codec import pack
from runtimed.protocol.host_operations import HostBecome
from runtimed.protocol.inherited import Inherited
from runtimed.protocol.kernel_operations import DescribeProcess, KernelChoice
from runtimed.settings import Settings

__all__ = ["KernelRequest", "KernelWanted", "SpareKernel"]


class KernelRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a client has asked for a kernel. The host keeps it, in memory, for the daemon that restarts the kernel.

    Attributes:
        environment: The environment variables of the client.
        cwd: The folder in which the kernel works, and where the search for project files begins.
        interpreter: The client's Python.
        uv: The uv that the client has found; None if it has none.
        inherited: What the kernel has as if the client had started it itself; None leaves it to the daemon.
        source: The code for which the kernel is needed; None if the document has it.
    """

    notebook_id: str
    kernel_type: str = "python"
    env_source: str = "auto"
    environment: Environment = msgspec.field(default_factory=dict)
    cwd: str = ""
    interpreter: str = ""
    uv: str | None = None
    inherited: Inherited | None = None
    source: str | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<KernelRequest notebook_id={self.notebook_id!r} env_source={self.env_source!r} cwd={self.cwd!r}>"

    @classmethod
    def by(
        cls, process: DescribeProcess, notebook_id: str, choice: KernelChoice, source: str | None = None
    ) -> KernelRequest:
        """Return how a client asks that has described its process.

        Raises:
            KernelStartFailed: If there is no folder for the kernel.
        """
        cwd = process.cwd if choice.folder is None else choice.folder
        if cwd is None:
            raise KernelStartFailed(
                "The folder in which the client works was deleted; change to another one (os.chdir, cd) and try again"
            )
        return cls(
            notebook_id=notebook_id,
            kernel_type=choice.kernel_type,
            env_source=choice.env_source,
            environment=process.environment,
            cwd=cwd,
            interpreter=process.interpreter,
            uv=process.uv,
            inherited=process.inherited,
            source=source,
        )


@dataclass(frozen=True, slots=True)
class SpareKernel:
    """A kind of spare kernel, as the pool needs it; see `SpareKind`."""

    kind: Kind
    max_kinds: ClassVar[int] = 2
    max_spares: ClassVar[int] = sys.maxsize

    @property
    def name(self) -> str:
        """See `SpareKind`."""
        return self.kind.source

    def replaces(self, other: SpareKernel) -> bool:
        """See `SpareKind`."""
        return self.kind.replaces(other.kind)

    def bootstrap(self, _place: Place, epoch: HostEpoch, _settings: Settings) -> Bootstrap:
        """See `SpareKind`."""
        kind = self.kind
        return Bootstrap(
            epoch=epoch,
            kernel_type="python",
            env_source=kind.source,
            interpreter=kind.interpreter,
            marker=kind.marker,
            environment=dict(kind.variables),
            cwd="/",
            notebook_label="spare",
            max_memory=kind.max_memory,
            spare=True,
        )

    def clear_up(self, place: Place, settings: Settings) -> None:
        """See `SpareKind`: a kernel leaves nothing elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelWanted:
    """A kernel to be started.

    Attributes:
        notebook_id: The session.
        settings: The daemon's settings.
        request: The client's request.
        kernel_type: Its kind.
        env_source: Where its environment comes from.
        prepared: The environment that was made for it; None for one that existed.
    """

    notebook_id: SessionId
    settings: Settings
    request: KernelRequest
    kernel_type: str
    env_source: str
    prepared: Prepared | None

    @property
    def interpreter(self) -> str:
        """Its Python, or the client's."""
        return self.request.interpreter if self.prepared is None else self.prepared.interpreter

    @property
    def environment(self) -> dict[str, str]:
        """Its environment variables."""
        return self.request.environment if self.prepared is None else self.prepared.environment

    @property
    def marker(self) -> str:
        """The file of its environment that its users lock; empty for an environment that runtimed did not make."""
        return "" if self.prepared is None else self.prepared.marker

    @property
    def facts(self) -> dict[str, Any]:
        """See `Wanted`."""
        return {"kernel_type": self.kernel_type, "env_source": self.env_source}

    async def spare_kind(self) -> SpareKernel | None:
        """See `Wanted`."""
        limit = self.settings.limits.max_kernel_memory
        kind = await asyncio.to_thread(kind_of, self.env_source, self.interpreter, self.marker, self.environment, limit)
        return None if kind is None else SpareKernel(kind)

    takes_spare: ClassVar[bool] = True

    def becoming(self) -> HostBecome:
        """See `Wanted`."""
        return HostBecome(
            kernel_type=self.kernel_type,
            env_source=self.env_source,
            request=pack(msgspec.to_builtins(self.request)),
            environment=self.environment,
            cwd=self.request.cwd,
            notebook_label=self.notebook_id,
            inherited=self.request.inherited,
        )

    def owner(self, epoch: HostEpoch) -> Owner:
        """See `Wanted`."""
        return Owner(
            notebook_id=self.notebook_id, epoch=epoch, kernel_type=self.kernel_type, env_source=self.env_source
        )

    def bootstrap(self, epoch: HostEpoch) -> Bootstrap:
        """See `Wanted`."""
        return Bootstrap(
            epoch=epoch,
            kernel_type=self.kernel_type,
            env_source=self.env_source,
            interpreter=self.interpreter,
            environment=self.environment,
            marker=self.marker,
            request=pack(msgspec.to_builtins(self.request)),
            cwd=self.request.cwd,
            notebook_label=self.notebook_id,
            inherited=self.request.inherited,
            max_memory=self.settings.limits.max_kernel_memory,
        )
