"""What several threads need first, at once: in a new process each time, as each is only once the first."""

import subprocess
import sys

import pytest

TOGETHER = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
sys.setswitchinterval(1e-6)
{imports}
barrier = threading.Barrier(16)
def work(number):
    barrier.wait()
    return {call}
with ThreadPoolExecutor(16) as pool:
    results = list(pool.map(work, range(16)))
assert all(result == results[0] for result in results), results
"""


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        (
            "from runtimed.protocol.codec import decode_answer, encode_message\n"
            "from runtimed.protocol.messages import Welcome, Reply\nframe = encode_message(Reply(1, {}))[4:]",
            "decode_answer(frame)",
        ),
        ("from runtimed.actions import parse_action", "parse_action({'type': 'click', 'ref': 'e1'})"),
        ("from runtimed.environments.uv_program import find_uv", "find_uv()"),
    ],
    ids=["messages", "actions", "uv"],
)
def test_threads_may_be_the_first_together(imports: str, call: str) -> None:
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", TOGETHER.format(imports=imports, call=call)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
