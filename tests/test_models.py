"""What public values do by themselves."""

import pickle

import pytest

from runtimed import ExecutionFailed, ExecutionResult, KernelDied, Output
from runtimed.ids import CellId, ExecutionId


def result(*outputs: Output, success: bool) -> ExecutionResult:
    return ExecutionResult(cell_id=CellId("c"), execution_id=ExecutionId("e"), success=success, outputs=outputs)


def test_a_result_that_ended_well_raises_nothing_and_is_returned():
    fine = result(Output(output_type="stream", name="stderr", text="Error!"), success=True)
    assert fine.raise_for_error() is fine


def test_an_error_of_the_code_is_raised_with_all_that_its_output_holds():
    lines = ("\x1b[31mTraceback\x1b[0m", "ValueError: not so")
    failed = result(Output(output_type="error", ename="ValueError", evalue="not so", traceback=lines), success=False)

    with pytest.raises(ExecutionFailed) as caught:
        failed.raise_for_error()

    error = caught.value
    assert str(error) == "ValueError: not so"
    assert (error.ename, error.evalue, error.traceback) == ("ValueError", "not so", lines)
    assert error.execution_id == "e"
    assert error.__notes__ == ["Traceback\nValueError: not so"]
    assert pickle.loads(pickle.dumps(error)).data == error.data


def test_a_death_of_the_kernel_is_raised_as_such():
    died = result(Output(output_type="error", ename="KernelDied", evalue="It died (exit code 3)"), success=False)
    with pytest.raises(KernelDied, match=r"^It died \(exit code 3\)\n"):
        died.raise_for_error()


def test_an_error_without_a_text_and_one_that_was_cleared_away_are_errors_all_the_same():
    with pytest.raises(ExecutionFailed, match="^KeyboardInterrupt\n"):
        result(Output(output_type="error", ename="KeyboardInterrupt", evalue=""), success=False).raise_for_error()
    with pytest.raises(ExecutionFailed, match="its error is not among its outputs"):
        result(success=False).raise_for_error()
