"""A cell through the proxy kernel, in turns with the same session's own `run`."""

import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from jupyter_client.manager import KernelManager

from runtimed import Session
from tests.bench.tools import Row, seconds

WARM_UP = 20
ROUNDS = 300

SPECS = Path(__file__).parents[2] / "jupyter-config"
"""Where Jupyter finds the kernelspec."""


def frontends() -> Iterator[Row]:
    """A cell and a completion through the proxy kernel, in turns with the session's own."""
    with mock.patch.dict(os.environ, JUPYTER_PATH=str(SPECS), RUNTIMED_NOTEBOOK_ID="frontends"):
        manager = KernelManager(kernel_name="runtimed")
        manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    with Session("frontends") as session:
        session.run("import os")
        ours, theirs, completed, through = [], [], [], []
        for _ in range(WARM_UP + ROUNDS):
            ours.append(seconds(lambda: session.run("1+1")))
            theirs.append(seconds(lambda: client.execute_interactive("1+1", output_hook=_ignore)))
        for _ in range(WARM_UP + ROUNDS):
            completed.append(seconds(lambda: session.complete("os.pa", 5)))
            through.append(seconds(lambda: client.complete("os.pa", 5, reply=True, timeout=60)))
        session.stop()
    client.stop_channels()
    manager.shutdown_kernel()
    for what, own, proxied in (("`1+1`", ours, theirs), ("a completion", completed, through)):
        pairs = list(zip(proxied, own, strict=True))[WARM_UP:]
        ratio = statistics.median(one / other for one, other in pairs)
        yield f"{what} through the proxy kernel / by the session itself, median of ratios", f"{ratio:.2f}"
        first, second = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
        yield "… medians", f"{first:.1f} ms / {second:.1f} ms"


def _ignore(_message: object) -> None:
    pass
