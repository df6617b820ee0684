"""Jupyter's own tests of a kernel, through the proxy kernel."""

from __future__ import annotations

import jupyter_kernel_test
import pytest

from tests.jupyter.proxy_kernel.conftest import Start


@pytest.fixture(autouse=True, scope="module")
def of_a_session(start: Start) -> None:
    """Let the kernels find their spec, and join a session that is there."""
    start("conformance")


class TestConformance(jupyter_kernel_test.KernelTests):  # type: ignore[misc]  # it has no types
    kernel_name = "runtimed"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]  # noqa: RUF012  # its base class says so
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]  # noqa: RUF012
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]  # noqa: RUF012
    invalid_code_samples = ["import = 7q"]  # noqa: RUF012
    code_page_something = ""  # a page is an output
    code_generate_error = "raise"
    code_execute_result = [{"code": "1+2+3", "result": "6"}]  # noqa: RUF012
    code_display_data = [  # noqa: RUF012
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"}
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")  # IPython calls the present session 0 in a range
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"
