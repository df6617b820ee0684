"""An IPython shell for the harness: reads cells as JSON, a line each, and answers with what each printed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


def main(folder: str) -> None:
    """Run cells until the input ends."""
    os.environ["IPYTHONDIR"] = folder
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell.instance(config=config)
    shell.run_cell("%load_ext runtimed")
    for line in sys.stdin:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            result = shell.run_cell(json.loads(line))
        print(json.dumps([printed.getvalue(), result.success]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
