"""`runtimed demo`: the whole story, and that it does not say well when it is not."""

import dataclasses
import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from runtimed.cli.demo.director import Facts, data_file, expected_lines, verify
from tests.cli.conftest import Begin, Command, read_until
from tests.conftest import wait_until

EXPECTED = expected_lines(data_file())

REPORT = [f"{number:2} of 44: {1957 + number}  315.4 ppm" for number in range(1, 45)]

GOOD = Facts(
    notebook_saw=REPORT[:14],
    notebook_exit=-signal.SIGKILL,
    agent_exit=0,
    visitor_exit=0,
    visitor_saw={1: ["loaded"], 2: REPORT, 3: EXPECTED[1], 4: ["the end"]},
    kernel_pids=(7, 7),
)


@pytest.fixture
def own_temp(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder in which the demo's scratch folder is the only one."""
    folder = short_folder / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_the_demo_keeps_its_promise_and_leaves_nothing(runtimed: Command, data_dir: Path, own_temp: Path):
    done = runtimed("demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall("^✓ ", done.stdout, re.MULTILINE)) == 6
    assert "✗" not in done.stdout
    assert [int(number) for number in re.findall(r"│ (?:cell 2 \| )? ?(\d+) of 44: ", done.stdout)] == list(
        range(1, 45)
    )
    assert list(own_temp.iterdir()) == []
    assert list(data_dir.iterdir()) == [own_temp]


def nothing_left(folder: Path, kernel: int) -> None:
    wait_until(lambda: not psutil.pid_exists(kernel), "the kernel lives on")
    assert list(folder.iterdir()) == []


def test_a_kernel_that_dies_in_the_demo_makes_it_fail(begin: Begin, own_temp: Path):
    process = begin("demo")
    kernel = int(read_until(process, "started kernel").split()[-1])
    read_until(process, " 8 of 44")
    os.kill(kernel, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "✗" in out or "cannot go on" in err
    nothing_left(own_temp, kernel)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_a_demo_that_is_stopped_leaves_nothing(number: int, code: int, begin: Begin, own_temp: Path):
    process = begin("demo")
    kernel = int(read_until(process, "started kernel").split()[-1])
    read_until(process, " 3 of 44")
    os.kill(process.pid, number)
    _out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    nothing_left(own_temp, kernel)


def test_everything_as_it_must_be_is_found_good():
    assert [holds for holds, _claim in verify(GOOD, EXPECTED)] == [True] * 6


@pytest.mark.parametrize(
    ("spoiled", "failing"),
    [
        ({"visitor_saw": {**GOOD.visitor_saw, 2: REPORT[:20] + REPORT[21:]}}, {1}),
        ({"visitor_saw": {**GOOD.visitor_saw, 2: REPORT[:20] + REPORT[19:]}}, {1}),
        ({"visitor_saw": {**GOOD.visitor_saw, 2: [*REPORT[:20], REPORT[21], REPORT[20], *REPORT[22:]]}}, {1}),
        ({"visitor_saw": {**GOOD.visitor_saw, 2: [*REPORT, "Traceback"]}}, {1}),
        ({"visitor_saw": {**GOOD.visitor_saw, 2: REPORT[:-1]}}, {1}),
        ({"visitor_saw": {}}, {1, 2, 3, 4}),
        ({"notebook_exit": 0}, {0}),
        ({"notebook_saw": REPORT}, {0}),
        ({"notebook_saw": []}, {0}),
        ({"notebook_saw": ["something else"]}, {2}),
        ({"agent_exit": 1}, {3}),
        ({"visitor_saw": {**GOOD.visitor_saw, 3: [*EXPECTED[1][:-1], "2000s: +9.99 ppm a year"]}}, {3}),
        ({"visitor_exit": 1}, {4}),
        ({"kernel_pids": (7, 8)}, {5}),
        ({"kernel_pids": (None, None)}, {5}),
    ],
)
def test_whatever_is_missing_is_found_out(spoiled: dict[str, object], failing: set[int]):
    findings = verify(dataclasses.replace(GOOD, **spoiled), EXPECTED)  # type: ignore[arg-type]
    assert {index for index, (holds, _claim) in enumerate(findings) if not holds} == failing


def test_what_is_expected_comes_from_the_data():
    assert EXPECTED == (
        44,
        [
            "1950s: +0.49 ppm a year",
            "1960s: +0.86 ppm a year",
            "1970s: +1.24 ppm a year",
            "1980s: +1.58 ppm a year",
            "1990s: +1.57 ppm a year",
            "2000s: +1.51 ppm a year",
        ],
    )
