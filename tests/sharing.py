"""What is made once for all the processes that run these tests."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["made_once"]


def made_once(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first who asks for it makes, while the other workers of the run wait.

    Args:
        folders: pytest's, which has one for the whole run around those of its workers.
        name: The folder's name; what is called the same is the same.
        make: Fills a folder that is not there yet; what it has left is removed if it fails.
    """
    root = folders.getbasetemp()
    # A run that a worker's test has started inherits the variable, and is one of its own.
    if root.name == f"popen-{os.environ.get('PYTEST_XDIST_WORKER')}":
        root = root.parent
    folder, made = root / name, root / f"{name}.made"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            made.touch()
    return folder
