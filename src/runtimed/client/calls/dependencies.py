"""The operations on the notebook's dependencies."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Literal

from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow, ask
from runtimed.client.given import check_text_list
from runtimed.errors import InvalidArgument
from runtimed.models import SyncEnvironmentResult
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol import kernel_operations as kernel_ops

__all__ = [
    "add_conda_dependencies",
    "add_conda_dependency",
    "add_uv_dependencies",
    "add_uv_dependency",
    "get_conda_dependencies",
    "get_uv_dependencies",
    "remove_conda_dependency",
    "remove_uv_dependency",
    "sync_environment",
]


def get_uv_dependencies(notebook: Notebook) -> Flow[list[str]]:
    """Return the notebook's dependencies for uv, as they were written."""
    return (yield from _get(notebook, "uv"))


def add_uv_dependency(notebook: Notebook, package: str) -> Flow[None]:
    """Add a dependency to the notebook's metadata, or replace the one of the same package.

    `sync_environment` installs it, and every kernel that starts from now on has it. Concurrent edits of the metadata
    stay.

    Args:
        package: A PEP 508 requirement: `pandas`, `pandas[excel]>=2.1`, `name @ https://…`.

    Raises:
        EnvironmentFailed: If it is no requirement.
    """
    yield from _add(notebook, "uv", [_check(package)])


def add_uv_dependencies(notebook: Notebook, packages: Sequence[str]) -> Flow[None]:
    """Add several dependencies, all or none; see `add_uv_dependency`.

    Raises:
        EnvironmentFailed: If one of them is no requirement.
    """
    yield from _add(notebook, "uv", packages)


def remove_uv_dependency(notebook: Notebook, package: str) -> Flow[bool]:
    """Remove a package from the dependencies for uv, whatever its version; a running kernel keeps it until its restart.

    Returns:
        Whether it was there.
    """
    return (yield from _remove(notebook, "uv", package))


def get_conda_dependencies(notebook: Notebook) -> Flow[list[str]]:
    """Return the notebook's dependencies for conda, as they were written."""
    return (yield from _get(notebook, "conda"))


def add_conda_dependency(notebook: Notebook, package: str) -> Flow[None]:
    """Add a dependency for conda to the notebook's metadata, or replace the one of the same package.

    If the notebook has dependencies for uv, too, only those are used.

    Args:
        package: A match spec: `pandas`, `pandas>=2.1`, `conda-forge::pandas`.

    Raises:
        EnvironmentFailed: If it is no match spec.
    """
    yield from _add(notebook, "conda", [_check(package)])


def add_conda_dependencies(notebook: Notebook, packages: Sequence[str]) -> Flow[None]:
    """Add several dependencies, all or none; see `add_conda_dependency`.

    Raises:
        EnvironmentFailed: If one of them is no match spec.
    """
    yield from _add(notebook, "conda", packages)


def remove_conda_dependency(notebook: Notebook, package: str) -> Flow[bool]:
    """Remove a package from the dependencies for conda, whatever its version.

    Returns:
        Whether it was there.
    """
    return (yield from _remove(notebook, "conda", package))


def sync_environment(notebook: Notebook) -> Flow[SyncEnvironmentResult]:
    """Install the notebook's dependencies for the running kernel without losing its state, if possible.

    It is possible while packages of uv are only added. They are added for this session alone; other sessions in the
    same environment do not see them. If a version changes or a package was removed, the running kernel stays unchanged:
    the new environment is made, and the result says that `restart_kernel` takes it.

    Raises:
        NoKernel: If no kernel runs.
        EnvironmentFailed: If the dependencies cannot be installed, or the kernel runs where runtimed installs nothing.
    """
    return (yield from ask(kernel_ops.SyncEnvironment(notebook_id=notebook.id))).result


_Manager = Literal["uv", "conda"]


def _get(notebook: Notebook, manager: _Manager) -> Flow[list[str]]:
    reply = yield from ask(document_ops.GetDependencies(notebook_id=notebook.id, manager=manager))
    return reply.dependencies


def _add(notebook: Notebook, manager: _Manager, packages: Sequence[str]) -> Flow[None]:
    packages = check_text_list("packages", packages)
    yield from ask(document_ops.AddDependencies(notebook_id=notebook.id, manager=manager, packages=packages))


def _remove(notebook: Notebook, manager: _Manager, package: str) -> Flow[bool]:
    request = document_ops.RemoveDependency(notebook_id=notebook.id, manager=manager, package=_check(package))
    reply = yield from ask(request)
    return reply.removed


def _check(package: object) -> str:
    if not isinstance(package, str):
        raise InvalidArgument(f"package is a str; not {reprlib.repr(package)}", argument="package")
    return package
