"""`python -m tests.labextension` builds the extension of JupyterLab anew, with Jupyter's own builder and npm."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["BUILT", "SOURCE", "digest"]

SOURCE: Final = Path(__file__).parents[1] / "src" / "runtimed" / "jupyter" / "labextension"
BUILT: Final = SOURCE / "built"

_CORE: Final = "4.6.6"
"""The JupyterLab whose shared packages the builder assumes; the extension itself works in every JupyterLab 4."""

_INSTALL: Final = {
    "packageManager": "python",
    "packageName": "ipython-runtimed",
    "uninstallInstructions": "Use your Python package manager to uninstall ipython-runtimed",
}


def digest() -> str:
    """Return the SHA-256 of all that the extension is built from."""
    files = sorted(path for path in SOURCE.rglob("*") if path.is_file() and not path.is_relative_to(BUILT))
    whole = b"".join(path.relative_to(SOURCE).as_posix().encode() + b"\0" + path.read_bytes() for path in files)
    return hashlib.sha256(whole).hexdigest()


def main() -> None:
    """Build it in a temporary folder, and replace what was built before."""
    with tempfile.TemporaryDirectory() as top:
        copy = Path(top) / "labextension"
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns(BUILT.name))
        subprocess.run(["npm", "install", "--no-save", "--no-audit", "--no-fund"], cwd=copy, check=True)
        builder = Path(sys.executable).with_name("jupyter-builder")
        subprocess.run([builder, "build", "--core-version", _CORE, "."], cwd=copy, check=True)
        shutil.rmtree(BUILT, ignore_errors=True)
        shutil.copytree(copy / BUILT.name, BUILT)
    (BUILT / "install.json").write_text(json.dumps(_INSTALL, indent=2) + "\n")
    (BUILT / "source.sha256").write_text(digest() + "\n")


if __name__ == "__main__":
    main()
