"""The proxy kernel beside a stock one: what each of many cells publishes and replies is the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from jupyter_client.manager import KernelManager

from tests.jupyter.proxy_kernel.conftest import Frontend, Start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CELLS: Final = [
    cell.removesuffix("\n")
    for cell in re.split(r"^# %%\n", (Path(__file__).parent / "corpus.txt").read_text("utf-8"), flags=re.M)[1:]
]

NAMELESS: Final = [cell for cell in CELLS if cell.startswith("class Broken")]
"""Cells whose `repr` raises: ipykernel replies with the error `NoneType`, the proxy with the one that was published."""

_VARIES: Final = re.compile(r"\b(0x)?[0-9a-f]{8,}\b|/tmp/ipykernel_\d+/\d+\.py|\d+(\.\d+)?(e\+\d+)? (\\u03bc|m|n)?s\b")
"""What is different in each process: addresses, names of temporary files, durations."""


def behaviour(frontend: Frontend, code: str) -> Any:
    """Return what a cell publishes and replies, without what varies, and with adjacent texts of a stream joined."""
    reply, messages = frontend.run(code, allow_stdin=False)
    found: list[list[Any]] = []
    for kind, content in messages:
        last = found[-1] if found else None
        if kind == "stream" and last is not None and last[0] == "stream" and last[1]["name"] == content["name"]:
            last[1] = {**content, "text": last[1]["text"] + content["text"]}
        else:
            found.append([kind, content])
    kept = ("status", "execution_count", "user_expressions", "payload", "ename", "evalue", "traceback")
    answer = {name: reply[name] for name in kept if name in reply}
    if code in NAMELESS:
        del answer["ename"], answer["evalue"]
    return json.loads(_VARIES.sub("…", json.dumps([found, answer])))


@pytest.fixture(scope="module")
def stock() -> Any:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    frontend = Frontend(manager)
    yield frontend
    frontend.close()


def test_the_proxied_kernel_publishes_what_a_stock_one_does(start: Start, stock: Frontend) -> None:
    proxied = start("corpus")
    differences = []
    for code in CELLS:
        expected, found = behaviour(stock, code), behaviour(proxied, code)
        if found != expected:
            differences.append((code, found, expected))
    assert differences == []
    assert len(CELLS) > 150
