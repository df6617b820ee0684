"""`runtimed kernelspec install`: the kernel that it installs is one for Jupyter, and joins the session."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_a_kernelspec_of_a_session_is_installed_for_this_user_or_below_a_prefix(
    in_process: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    arguments = ("kernelspec", "install", "--session", "co2 ü", "--name", "Co2")
    place = tmp_path / "user" / "kernels" / "co2"
    done = in_process(*arguments)
    assert (done.returncode, done.stdout) == (0, f"Installed 'co2 ü (runtimed)' in {place}\n")
    spec = json.loads((place / "kernel.json").read_text("utf-8"))
    assert spec["argv"] == [
        *(sys.executable, "-m", "runtimed.jupyter.proxy_kernel", "-f", "{connection_file}", "--session", "co2 ü")
    ]
    assert (spec["display_name"], spec["interrupt_mode"]) == ("co2 ü (runtimed)", "message")

    done = in_process(*arguments, "--display-name", "CO2", "--prefix", str(tmp_path / "prefix"))
    below = tmp_path / "prefix" / "share" / "jupyter" / "kernels" / "co2" / "kernel.json"
    assert (done.returncode, json.loads(below.read_text("utf-8"))["display_name"]) == (0, "CO2")


def test_a_name_that_jupyter_refuses_is_an_error(in_process: Command) -> None:
    done = in_process("kernelspec", "install", "--session", "co2", "--name", "a b")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The kernelspec cannot be installed: Invalid kernel name 'a b'")
