"""The environment of a session's kernel: how it is chosen, consented to, made and extended. It starts no process."""

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
"""What environments begin with about which no document has a say."""


class KernelEnvironment:
    """Decides for one session; what is made is shared with all others.

    Args:
        notebook_id: The session.
        document: May say what the kernel needs.
        log: Takes the progress.
        environments: Makes them.
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
        """Choose the environment: what is asked for, what the document says, what lies about.

        Raises:
            EnvironmentFailed: If what describes it cannot be understood.
        """
        metadata: str | None = None
        sources = [] if request.source is None else [request.source]
        if not request.env_source.startswith(_NAMED):
            content = self._document.content
            note_written(self._environments.trust, content, request)
            metadata = content.metadata(NOTEBOOK_METADATA)
            # What is about to run comes first: it must find what it names itself.
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

        # Files of others may take long to understand.
        return await asyncio.to_thread(look)

    async def choose_again(self, request: KernelRequest) -> Decision:
        """Choose the environment for a kernel that runs: a plain one, with what the notebook names. Asks for consent.

        Raises:
            EnvironmentFailed: If what describes it cannot be understood, or nobody has consented to it.
        """
        named_now = request
        managers: tuple[Manager, ...] = ("uv", "conda")
        for manager in managers:
            if request.env_source == f"{manager}:prewarmed" and named(
                self._document.content.metadata(NOTEBOOK_METADATA), manager
            ):
                named_now = msgspec.structs.replace(request, env_source=f"{manager}:inline")
        decision = await self.choose(named_now)
        # By what was asked for at the start: asking for a plain one is no consent to what the notebook names.
        await self.check_consent(decision, request)
        return decision

    async def check_consent(self, decision: Decision, request: KernelRequest) -> None:
        """Refuse what nobody here has asked for; see `consent.check_consent`.

        Raises:
            EnvironmentFailed: If it needs consent.
            StorageError: If a consent cannot be stored.
        """
        await asyncio.to_thread(check_consent, self._environments.trust, decision, request)

    async def trust(self, request: KernelRequest) -> TrustEnvironmentReply:
        """Consent to what a kernel would get that is asked for like this. Nothing is started.

        Raises:
            EnvironmentFailed: If what describes it cannot be understood.
            StorageError: If the consent cannot be stored.
        """
        decision = await self.choose(request)
        named = msgspec.structs.replace(request, env_source=decision.source)
        await self.check_consent(decision, named)
        settled = await asyncio.to_thread(with_settings, decision, request.environment)
        return TrustEnvironmentReply(env_source=decision.source, explained=explain(settled))

    async def prepare(self, decision: Decision, request: KernelRequest) -> Prepared | None:
        """Have the environment made; None for one that is there without us.

        Raises:
            EnvironmentFailed: If it cannot be had.
            CancelledError: If the kernel was unwanted before it was made; see `cancel`.
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
        """Stop waiting for the environment that `prepare` has made. Harmless if it waits for none."""
        if self._preparing is not None:
            self._preparing.cancel()

    async def extend(self, decision: Decision, marker: str, folder: Path, request: KernelRequest) -> Addition:
        """Add to a running kernel what it lacks of this environment; else have the whole environment made.

        Args:
            decision: The environment that it should have.
            marker: The file that belongs to the environment that it has.
            folder: Where packages for this kernel alone go.
            request: How it was asked for.

        Raises:
            EnvironmentFailed: If it cannot be had.
        """
        variables, interpreter = request.environment, request.interpreter
        addition = await self._environments.extend(decision, marker, folder, variables, interpreter, self.tell)
        if addition.obstacle is not None:
            await self._environments.prepare(decision, variables, interpreter, self.tell)
        return addition

    def tell(self, progress: Progress) -> None:
        """Tell everybody in the session how far the environment is."""
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
            # Others may wait for the same environment; it is made though this session cannot tell of it.
            logger.warning("session %r cannot store its progress: %s", self._notebook_id, exc)
