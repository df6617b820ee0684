"""Matches spare kernels with starts, by everything that a running Python cannot change. Nothing here starts anything.

A spare gets everything else (the folder, `PATH`, credentials, a project's own variables) at hand-over, before it reads
any of it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Kind", "kind_of"]

_SOURCES: Final = ("current", "python:", "uv:prewarmed", "conda:prewarmed")
"""The environments for which a spare can be ready before anybody asks. Those of a notebook or a project change with it,
and a spare in one would keep it from being removed."""

_FIXED: Final = (
    "PYTHON",
    # The dynamic loader and the C library read these when the process starts.
    "LD_",
    "DYLD_",
    "MALLOC_",
    "GLIBC_",
    "LANG",
    "LC_",
    "LOCPATH",
    "TZ",
    # Hooks of site-packages, and modules that a kernel imports, keep what they read.
    "COV",
    "DEBUGPY",
    "FORCE_COLOR",
    "HOME",
    "IPYTHON",
    "IPY_",
    "JUPYTER",
    "NO_COLOR",
    "OPENSSL_",
    "PYDEV",
    "PYZMQ_",
    "SSL_",
    "TEMP",
    "TMP",
    "TRAITLETS_",
    "ZMQ_",
    # Libraries of threads may be loaded by a hook of site-packages.
    "BLIS_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "NUMEXPR_",
    "OMP_",
    "OPENBLAS_",
    "VECLIB_",
)
"""What the names of variables begin with that matter before a kernel can be told its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of spare kernel; equal kinds are interchangeable.

    Attributes:
        source: For people: `current`, `uv:prewarmed`. Two of the same interpreter are the same kind.
        interpreter: Its Python.
        marker: The file on which users of this environment hold a lock; empty for an environment that is not ours.
        variables: The variables that cannot be changed later, by name. Left out of the repr.
        stamp: What changes when a package is installed or removed, or the environment is made anew: a spare has read
            many of its files, and must not mix them with others.
        max_memory: The most that it may use, in bytes; None for no limit.
    """

    source: str = field(compare=False)
    interpreter: str
    marker: str
    variables: tuple[tuple[str, str], ...] = field(repr=False)
    stamp: tuple[tuple[str, int, int], ...] = field(repr=False)
    max_memory: int | None

    def replaces(self, other: Kind) -> bool:
        """Whether this kind supersedes the other, whose packages have changed."""
        return dataclasses.replace(other, stamp=self.stamp) == self


def kind_of(
    source: str, interpreter: str, marker: str, environment: Mapping[str, str], max_memory: int | None
) -> Kind | None:
    """Return the kind of spare that fits a start, None if no spare can.

    Args:
        source: The environment that was decided on.
        interpreter: The Python that will run; ignored for `python:/path`.
        marker: See `Kind`.
        environment: The complete environment variables for this kernel.
        max_memory: See `Kind`.
    """
    if not source.startswith(_SOURCES):
        return None
    if source.startswith("python:"):
        interpreter = source.removeprefix("python:")
    variables = {name: value for name, value in environment.items() if name.startswith(_FIXED)}
    search_path = variables.get("PYTHONPATH", "")
    if search_path and not all(map(os.path.isabs, search_path.split(os.pathsep))):
        # Python resolves it against the folder in which it starts.
        return None
    stamp = _stamp(interpreter, marker, variables)
    if not stamp:
        return None
    return Kind(
        source=source,
        interpreter=interpreter,
        marker=marker,
        variables=tuple(sorted(variables.items())),
        stamp=stamp,
        max_memory=max_memory,
    )


def _stamp(interpreter: str, marker: str, variables: Mapping[str, str]) -> tuple[tuple[str, int, int], ...]:
    """Return inode and time of change of the interpreter and the folders of packages; empty without an interpreter."""
    prefix = Path(interpreter).parent.parent
    user = variables.get("PYTHONUSERBASE") or f"{variables.get('HOME', '')}/.local"
    folders = [
        *prefix.glob("lib*/python3*/*-packages"),
        *prefix.glob("local/lib/python3*/*-packages"),
        *Path(user).glob("lib/python3*/*-packages"),
    ]
    found = []
    for path in (Path(interpreter), *sorted(folders)):
        try:
            status = path.stat()
        except OSError:
            if str(path) == interpreter:
                return ()
            continue
        found.append((str(path), status.st_ino, status.st_mtime_ns))
    if marker:
        try:
            # Its time of change is that of its last use.
            found.append((marker, Path(marker).stat().st_ino, 0))
        except OSError:
            return ()
    return tuple(found)
