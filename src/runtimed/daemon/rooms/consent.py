"""Consent to dependencies: refuses to install what came with a document or project until the user agrees.

The socket admits only this user's clients, so what a client writes has the user's consent. What came with somebody
else's document or project needs it. Nothing here installs anything.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, Final

from runtimed.daemon.hosting.kernel_start import KernelRequest
from runtimed.environments import dependencies
from runtimed.environments.decision import Decision
from runtimed.environments.dependencies import NOTEBOOK_METADATA
from runtimed.environments.detection import asked_in
from runtimed.environments.maker import with_settings
from runtimed.environments.pip_settings import uv_variables
from runtimed.environments.recipes import Recipe
from runtimed.environments.trust import Trust, dependency_set, origins, packages
from runtimed.errors import EnvironmentFailed
from runtimed.ids import CellId
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol import execution_operations as execution_ops
from runtimed.protocol.operation import Operation
from runtimed.storage.notebook import NotebookTables

__all__ = ["check_consent", "note_written"]

_FROM_THE_DOCUMENT: Final = frozenset({"uv:inline", "uv:pep723", "conda:inline"})


def check_consent(trust: Trust, decision: Decision, request: KernelRequest) -> None:
    """Refuse dependencies without consent. A request that names the environment gives consent, also for later ones.

    Raises:
        EnvironmentFailed: If consent is missing. The message says what would be installed, from where, and how to
            consent; attributes are `notebook_id`, `env_source`, `packages`, `origins`.
        StorageError: If a consent cannot be stored.
    """
    needed = decision.source in _FROM_THE_DOCUMENT or decision.doubt is not None
    if decision.recipe is None or not needed:
        return
    wanted = dependency_set(decision.recipe)
    if request.env_source == decision.source:
        trust.give(wanted)
    elif not trust.has(wanted):
        raise _refusal(decision, decision.recipe, request)


def note_written(trust: Trust, document: NotebookTables, operation: Operation[Any] | KernelRequest) -> None:
    """Store the consent to dependencies that a client gives by writing them.

    Dependencies that the text had before get no consent: a client writes them back with the line that it has changed.

    Args:
        trust: The consents.
        document: The notebook before the operation.
        operation: What is about to be performed.

    Raises:
        StorageError: If the consent cannot be stored; then the operation must not be performed.
    """
    for before, after in _texts(trust, document, operation):
        written = asked_in(**after)
        if written is not None:
            wanted, there = dependency_set(written), asked_in(**before)
            if there is None or dependency_set(there) != wanted:
                trust.give(wanted)


def _texts(
    trust: Trust, document: NotebookTables, operation: Operation[Any] | KernelRequest
) -> Iterator[tuple[dict[str, str | None], dict[str, str | None]]]:
    """Yield the texts that may name dependencies, each as it is and as it will be."""
    match operation:
        case document_ops.SetMetadata(key="notebook_metadata", value=value):
            yield {"metadata": document.metadata(NOTEBOOK_METADATA)}, {"metadata": value}
        case document_ops.AddDependencies(manager=manager, packages=packages):
            present = document.metadata(NOTEBOOK_METADATA)
            if _is_trusted(trust, present):
                yield {"metadata": present}, {"metadata": dependencies.add(present, manager, packages)}
        case document_ops.RemoveDependency(manager=manager, package=package):
            present = document.metadata(NOTEBOOK_METADATA)
            if _is_trusted(trust, present):
                yield {"metadata": present}, {"metadata": dependencies.remove(present, manager, package)}
        case document_ops.AddCell(source=source):
            yield {}, {"source": source}
        case (
            document_ops.SetSource(cell_id=cell_id, source=str(source))
            | execution_ops.Enqueue(cell_id=cell_id, source=str(source))
        ) if "///" in source:
            yield {"source": _source(document, cell_id)}, {"source": source}
        # A token stream appends often, and only a slash can complete a script block.
        case document_ops.AppendSource(cell_id=cell_id, text=text) if "/" in text:
            present = _source(document, cell_id)
            yield {"source": present}, {"source": present + text}
        case KernelRequest(source=str(source)) if not document.has_source(source):
            # The code becomes a cell.
            yield {}, {"source": source}
        case _:
            return


def _is_trusted(trust: Trust, metadata: str | None) -> bool:
    """Whether there is consent to all dependencies of a notebook; adding a package gives none to the others."""
    there = asked_in(metadata=metadata)
    return there is None or trust.has(dependency_set(there))


def _source(document: NotebookTables, cell_id: str) -> str:
    cell = document.cell(CellId(cell_id))
    return "" if cell is None else cell.source


def _refusal(decision: Decision, recipe: Recipe, request: KernelRequest) -> EnvironmentFailed:
    settled = with_settings(decision, request.environment).recipe or recipe
    variables = {**request.environment, **uv_variables(request.environment, request.interpreter)}
    wanted, places = packages(settled), origins(settled, variables)
    why = decision.doubt or "they came with the document; nobody has written them here"
    name = request.notebook_id
    return EnvironmentFailed(
        f"Session {name!r} asks for dependencies that you have not consented to: {why}. {decision.source} would "
        f"install {', '.join(wanted) or 'no package beside Python'} from {', '.join(places)}. To consent, run "
        f"`%runtimed env trust {shlex.quote(name)}` or `runtimed env trust {shlex.quote(name)}`, or ask for it by "
        f"name: start_kernel(env_source={decision.source!r})",
        notebook_id=name,
        env_source=decision.source,
        packages=wanted,
        origins=places,
    )
