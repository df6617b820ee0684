"""The operations that concern what the notebook depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow, ask
from runtimed.errors import SessionError
from runtimed.models import SyncEnvironmentResult
from runtimed.protocol import client_operations as ops

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
    """Return the dependencies that the notebook names for uv, as they were written."""
    return (yield from _get(notebook, "uv"))


def add_uv_dependency(notebook: Notebook, package: str) -> Flow[None]:
    """Name a dependency in the notebook's metadata, in place of one of the same package if there is one.

    It is installed by `sync_environment`, and in every kernel that starts from now on. What others write into the
    metadata at the same time stays.

    Args:
        package: As PEP 508 has it: `pandas`, `pandas[excel]>=2.1`, `name @ https://…`.

    Raises:
        EnvironmentFailed: If this is no dependency.
    """
    yield from _add(notebook, "uv", [package])


def add_uv_dependencies(notebook: Notebook, packages: Sequence[str]) -> Flow[None]:
    """Name several dependencies, all or, if one of them is wrong, none; see `add_uv_dependency`.

    Raises:
        EnvironmentFailed: If one of them is no dependency.
    """
    yield from _add(notebook, "uv", packages)


def remove_uv_dependency(notebook: Notebook, package: str) -> Flow[bool]:
    """Take a package out of the dependencies for uv, whatever its version; the kernel keeps it until it is restarted.

    Returns:
        Whether it was there.
    """
    return (yield from _remove(notebook, "uv", package))


def get_conda_dependencies(notebook: Notebook) -> Flow[list[str]]:
    """Return the dependencies that the notebook names for conda, as they were written."""
    return (yield from _get(notebook, "conda"))


def add_conda_dependency(notebook: Notebook, package: str) -> Flow[None]:
    """Name a dependency for conda in the notebook's metadata, in place of one of the same package if there is one.

    If the notebook names dependencies for uv, too, it gets those only.

    Args:
        package: A match spec: `pandas`, `pandas>=2.1`, `conda-forge::pandas`.

    Raises:
        EnvironmentFailed: If this is no match spec.
    """
    yield from _add(notebook, "conda", [package])


def add_conda_dependencies(notebook: Notebook, packages: Sequence[str]) -> Flow[None]:
    """Name several dependencies, all or, if one of them is wrong, none; see `add_conda_dependency`.

    Raises:
        EnvironmentFailed: If one of them is no match spec.
    """
    yield from _add(notebook, "conda", packages)


def remove_conda_dependency(notebook: Notebook, package: str) -> Flow[bool]:
    """Take a package out of the dependencies for conda, whatever its version.

    Returns:
        Whether it was there.
    """
    return (yield from _remove(notebook, "conda", package))


def sync_environment(notebook: Notebook) -> Flow[SyncEnvironmentResult]:
    """Give the running kernel what the notebook names by now, without losing its state, where that is possible.

    It is possible as long as packages of uv are only added; they are this session's alone, other sessions in the same
    environment do not see them. Where a version changes or something was removed, nothing is changed: the new
    environment is made, and the result says that `restart_kernel` takes it.

    Raises:
        NoKernel: If no kernel runs.
        EnvironmentFailed: If the dependencies cannot be had, or the kernel runs where runtimed installs nothing.
    """
    return (yield from ask(ops.SyncEnvironment(notebook_id=notebook.id))).result


_Manager = Literal["uv", "conda"]


def _get(notebook: Notebook, manager: _Manager) -> Flow[list[str]]:
    reply = yield from ask(ops.GetDependencies(notebook_id=notebook.id, manager=manager))
    return reply.dependencies


def _add(notebook: Notebook, manager: _Manager, packages: Sequence[str]) -> Flow[None]:
    if isinstance(packages, str):
        raise SessionError(f"Several dependencies are a list of texts, not one text: {packages!r}")
    for package in packages:
        _check(package)
    yield from ask(ops.AddDependencies(notebook_id=notebook.id, manager=manager, packages=list(packages)))


def _remove(notebook: Notebook, manager: _Manager, package: str) -> Flow[bool]:
    _check(package)
    reply = yield from ask(ops.RemoveDependency(notebook_id=notebook.id, manager=manager, package=package))
    return reply.removed


def _check(package: object) -> None:
    if not isinstance(package, str):
        raise SessionError(f"A dependency must be a str, not {type(package).__name__}")
