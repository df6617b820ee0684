"""Chooses, makes and extends the environment of a session's kernel, with the user's consent. It starts no kernel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from runtimed.daemon.hosting.kernel_start import KernelRequest
from runtimed.daemon.rooms.consent import check_consent, note_written
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.environments.additions import Addition
from runtimed.environments.decision import Decision, explain
from runtimed.environments.dependencies import NOTEBOOK_METADATA, Manager, named
from runtimed.environments.detection import decide
from runtimed.environments.facts import gather
from runtimed.environments.maker import Environments, Prepared, with_settings
from runtimed.environments.recipes import Progress
from runtimed.environments.script_block import SCRIPT
from runtimed.errors import StorageError
from runtimed.ids import SessionId
from runtimed.protocol.events import EnvProgress
from runtimed.protocol.kernel_operations import TrustEnvironmentReply

__all__ = ["KernelEnvironment"]

logger = logging.getLogger(__name__)

_NAMED: Final = ("current", "python:", "kernelspec:", "uv:prewarmed", "conda:prewarmed")
"""Prefixes of environments that do not depend on the document."""


class KernelEnvironment:
    """The environment of one session's kernel. Environments that are made are shared by all sessions.

    Args:
        notebook_id: The session.
        document: May name dependencies.
        log: Gets the progress.
        environments: Makes environments.
        clock: Returns the Unix time.
    """

    def __init__(
        self,
        notebook_id: SessionId,
        document: SharedDocument,
        log: EventLog,
        environments: Environments,
        clock: Callable[[], float],
    ) -> None:
        self._notebook_id = notebook_id
        self._document = document
        self._log = log
        self._environments = environments
        self._clock = clock
        self._preparing: asyncio.Task[Prepared | None] | None = None

    @property
    def is_named(self) -> bool:
        """Whether the notebook names packages in its metadata."""
        metadata = self._document.content.metadata(NOTEBOOK_METADATA)
        return bool(named(metadata, "uv") or named(metadata, "conda"))

    async def choose(self, request: KernelRequest) -> Decision:
        """Choose the environment by the request, the document and the project files.

        Raises:
            EnvironmentFailed: If a description of it cannot be parsed.
        """
        metadata: str | None = None
        sources = [] if request.source is None else [request.source]
        if not request.env_source.startswith(_NAMED):
            content = self._document.content
            note_written(self._environments.trust, content, request)
            metadata = content.metadata(NOTEBOOK_METADATA)
            # The code about to run comes first: it must get the dependencies that it names.
            sources += content.codes(SCRIPT)

        def look() -> Decision:
            facts = gather(
                asked=request.env_source,
                kernel_type=request.kernel_type,
                metadata=metadata,
                sources=sources,
                folder=request.cwd,
                environment=request.environment,
                interpreter=request.interpreter,
                uv=request.uv,
            )
            return decide(facts)

        # Project files may take long to parse.
        return await asyncio.to_thread(look)

    async def choose_again(self, request: KernelRequest) -> Decision:
        """Choose the environment of a running kernel anew: dependencies that the notebook names now extend a plain one.

        Raises:
            EnvironmentFailed: If a description of it cannot be parsed, or consent is missing.
        """
        named_now = request
        managers: tuple[Manager, ...] = ("uv", "conda")
        for manager in managers:
            if request.env_source == f"{manager}:prewarmed" and named(
                self._document.content.metadata(NOTEBOOK_METADATA), manager
            ):
                named_now = msgspec.structs.replace(request, env_source=f"{manager}:inline")
        decision = await self.choose(named_now)
        # By the original request: asking for a plain environment is no consent to what the notebook names.
        await self.check_consent(decision, request)
        return decision

    async def check_consent(self, decision: Decision, request: KernelRequest) -> None:
        """Refuse dependencies without consent; see `consent.check_consent`.

        Raises:
            EnvironmentFailed: If consent is missing.
            StorageError: If a consent cannot be stored.
        """
        await asyncio.to_thread(check_consent, self._environments.trust, decision, request)

    async def trust(self, request: KernelRequest) -> TrustEnvironmentReply:
        """Consent to the dependencies that a kernel of this request would get. Nothing is started.

        Raises:
            EnvironmentFailed: If a description of them cannot be parsed.
            StorageError: If the consent cannot be stored.
        """
        decision = await self.choose(request)
        named = msgspec.structs.replace(request, env_source=decision.source)
        await self.check_consent(decision, named)
        settled = await asyncio.to_thread(with_settings, decision, request.environment)
        return TrustEnvironmentReply(env_source=decision.source, explained=explain(settled))

    async def prepare(self, decision: Decision, request: KernelRequest) -> Prepared | None:
        """Make the environment and return it; None for one that runtimed does not make.

        Raises:
            EnvironmentFailed: If it cannot be made.
            CancelledError: If `cancel` was called meanwhile.
        """
        told = False

        def tell(progress: Progress) -> None:
            nonlocal told
            told = True
            self.tell(progress)

        self._preparing = asyncio.get_running_loop().create_task(
            self._environments.prepare(decision, request.environment, request.interpreter, tell)
        )
        try:
            prepared = await self._preparing
        finally:
            self._preparing = None
        if told:
            tell(Progress(step="start", message=f"Starting the kernel in {decision.source}"))
        return prepared

    def cancel(self) -> None:
        """Stop the wait for an environment in `prepare`. Idempotent."""
        if self._preparing is not None:
            self._preparing.cancel()

    async def extend(self, decision: Decision, marker: str, folder: Path, request: KernelRequest) -> Addition:
        """Add to a running kernel what it lacks of this environment; if that is impossible, make the environment.

        Args:
            decision: The environment that the kernel should have.
            marker: Marker of the environment that it has.
            folder: Where packages for this kernel alone are installed.
            request: The request that started it.

        Raises:
            EnvironmentFailed: If it cannot be made.
        """
        variables, interpreter = request.environment, request.interpreter
        addition = await self._environments.extend(decision, marker, folder, variables, interpreter, self.tell)
        if addition.obstacle is not None:
            await self._environments.prepare(decision, variables, interpreter, self.tell)
        return addition

    def tell(self, progress: Progress) -> None:
        """Publish the progress of the environment to everybody in the session."""
        event = EnvProgress(
            at=self._clock(),
            step=progress.step,
            message=progress.message,
            done=progress.done,
            total=progress.total,
        )
        try:
            with self._log.transaction():
                self._log.append(event)
        except StorageError as exc:
            # The environment is made nevertheless: other sessions may wait for it, too.
            logger.warning("session %r: the progress of its environment is not stored: %s", self._notebook_id, exc)
