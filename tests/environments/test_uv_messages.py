"""What uv writes, as people hear it."""

import pytest

from runtimed.environments.recipes import Progress
from runtimed.environments.uv_messages import Plan, ProgressReader, failure, read_plan

SAID = """\
Using Python 3.11.2 environment at: c3
Resolved 31 packages in 375ms
Downloading numpy (16.1MiB)
Downloading pandas (11.5MiB)
   Building demo @ file:///work/demo
 Downloaded numpy
 Downloaded pandas
Prepared 2 packages in 458ms
Installed 1 package in 51ms
Bytecode compiled 1458 files in 6.63s
 + numpy==2.4.6
"""


def test_the_lines_of_uv_become_progress_with_bytes():
    reader = ProgressReader()
    mib = 2**20
    numpy, pandas = int(16.1 * mib), int(11.5 * mib)
    assert [progress for line in SAID.splitlines() if (progress := reader.read(line)) is not None] == [
        Progress(step="install", message="Installing 31 packages"),
        Progress(step="download", message="Downloading numpy", done=0, total=numpy),
        Progress(step="download", message="Downloading pandas", done=0, total=numpy + pandas),
        Progress(step="install", message="Building demo"),
        Progress(step="download", message="Downloading numpy", done=numpy, total=numpy + pandas),
        Progress(step="download", message="Downloading pandas", done=numpy + pandas, total=numpy + pandas),
        Progress(step="install", message="Byte-compiling 1 package"),
    ]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("error: failed to write\n  cause: No space left on device (os error 28)", "The disk is full; make room"),
        ("error: Failed to fetch: `http://x`\n  cause: dns error", "The package index cannot be reached"),
        (
            "error: Failed to download `demo==1`\n  cause: Failed to download distribution due to network\n  timeout. "
            "Try increasing\n  UV_HTTP_TIMEOUT (current value: 6s).",
            "The package index cannot be reached",
        ),
        (
            "error: Failed to install cpython-3.13.18-linux-x86_64-gnu\n  cause: error sending request for url",
            "No Python that fits is installed here, and none can be downloaded",
        ),
        ("error: Failed to build `demo`\n  boom", "The package 'demo' does not build"),
        (
            "error: Failed to parse `uv.lock`\n  cause: TOML parse error",
            "uv.lock cannot be read; make it anew with `uv lock`",
        ),
        (
            "error: Project `a` has malformed dependency groups\n  cause: Detected a cycle",
            "What describes the packages cannot be understood; mend it",
        ),
        ("error: something new", "What uv said is below"),
    ],
)
def test_a_failure_says_what_to_do_and_what_uv_said(said, sentence):
    error = failure("the environment of demo", f"warning: noise\n{said}\n")
    assert str(error).startswith(f"Cannot make the environment of demo. {sentence}")
    assert str(error).endswith(f"\nuv said:\n{said}")
    assert error.log == f"warning: noise\n{said}"


def test_of_a_long_failure_the_error_and_the_end_are_repeated():
    said = ["error: Failed to build `demo`", *(f"  {number}" for number in range(40)), "hint: mend it"]
    error = failure("the environment of demo", "\n".join(said))
    assert str(error).partition("\nuv said:\n")[2].splitlines() == [said[0], "  …", *said[-11:]]
    assert error.log == "\n".join(said)


def test_a_plan_is_what_would_come_and_what_would_have_to_go():
    said = """Using Python 3.11.7 environment at: e
Resolved 4 packages in 34ms
Would download 1 package
Would uninstall 1 package
Would install 4 packages
 - alpha==1.0
 + alpha==2.0
 + beta-x @ file:///tmp/beta_x-1.0-py3-none-any.whl
 ~ delta==1.0
 + gamma==1.0 (from https://example.org/gamma.whl)"""
    assert read_plan(said.splitlines()) == Plan(
        added=(
            "alpha==2.0",
            "beta-x @ file:///tmp/beta_x-1.0-py3-none-any.whl",
            "gamma @ https://example.org/gamma.whl",
        ),
        changed=("alpha", "delta"),
    )
    assert read_plan(["Audited 2 packages in 1ms"]) == Plan()
