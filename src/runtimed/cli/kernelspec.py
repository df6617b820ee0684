"""`runtimed kernelspec`: installs a kernel for frontends of Jupyter that joins one session."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from runtimed.cli.exits import Exit
from runtimed.cli.printing import complain, say

__all__ = ["kernelspec_install"]


def kernelspec_install(arguments: argparse.Namespace) -> int:
    """Install a kernelspec for one session, in this user's folder of kernels or below a prefix."""
    from jupyter_client.kernelspec import KernelSpecManager  # noqa: PLC0415  # takes a while

    title = arguments.display_name or f"{arguments.id} (runtimed)"
    spec = {
        "argv": [
            sys.executable,
            *("-m", "runtimed.jupyter.proxy_kernel", "-f", "{connection_file}", "--session", arguments.id),
        ],
        "display_name": title,
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"debugger": False},
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.json").write_text(json.dumps(spec, indent=2), "utf-8")
        try:
            place = KernelSpecManager().install_kernel_spec(
                folder, arguments.name, user=arguments.prefix is None, prefix=arguments.prefix
            )
        except (OSError, ValueError) as exc:
            complain(f"The kernelspec cannot be installed: {exc}")
            return Exit.FAILED
    say(f"Installed {title!r} in {place}")
    return Exit.OK
