"""Values of Python between a client and the kernel: results, and variables by name."""

import base64
import collections
import copy
import datetime
import decimal
import fractions
import os
import pathlib
import pickle
import threading
import uuid
from typing import Any

import pandas
import pytest

from runtimed import (
    AsyncBrowserSession,
    AsyncClient,
    AsyncSession,
    BrowserSession,
    Client,
    NoKernel,
    RuntimedError,
    Session,
    ValueRefused,
    VariableNotFound,
)
from runtimed.host.variables import MAX_RESULTS
from runtimed.kernel_launcher.values import MAX_RESULT, MAX_VALUE, RESULT_KEY, dump, dump_plain
from tests.client.faces import on_one_face
from tests.conftest import wait_until

PLAIN: list[Any] = [
    None,
    True,
    -1,
    10**100,
    0.1,
    float("inf"),
    1j,
    "naïve \U0001f600 \ud800",
    b"\x00\xff",
    bytearray(b"x"),
    (1, (2,), []),
    {"a": [1, {2, 3}], (1, 2): frozenset({4})},
    list(range(5000)),
    range(3),
    slice(1, None),
    ...,
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
    datetime.timedelta(days=-1),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=7),
    pathlib.PurePosixPath("/a/b"),
    collections.Counter("abca"),
    collections.OrderedDict(a=1),
    collections.deque([1, 2], maxlen=3),
    collections.defaultdict(list, a=[1]),
]


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_the_value_of_a_last_expression_comes_as_it_is(with_kernel, value):
    result = with_kernel.run(f"import pickle; pickle.loads({pickle.dumps(value)!r})")
    assert result.value == value
    assert type(result.value) is type(value)
    assert RESULT_KEY not in str(result.outputs)


@pytest.mark.parametrize(
    "code",
    [
        "numpy.arange(6, dtype='f4').reshape(2, 3)",
        "numpy.float64(0.5)",
        "numpy.datetime64('2026-01-01')",
        "numpy.ma.array([1, 2], mask=[0, 1])",
        "pandas.DataFrame({'a': [1, 2], 'b': ['x', None]})",
        "pandas.DataFrame({'a': pandas.array([1, None], dtype='Int64')}, index=pandas.date_range('2026', periods=2))",
        "pandas.Series([1.5, 2], name='s')",
        "pandas.Timestamp('2026-01-01', tz='UTC')",
        "pandas.Categorical(['a', 'b', 'a'])",
        "pandas.NA",
        "pandas.NaT",
    ],
)
def test_values_of_numpy_and_pandas_come_as_they_are(with_kernel, code):
    package = code.partition(".")[0]
    module = pytest.importorskip(package)
    value = with_kernel.run(f"import {package}\n{code}").value
    expected = eval(code, {package: module})
    assert type(value) is type(expected)
    assert repr(value) == repr(expected)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("class A:\n    def __repr__(self): return 'an A'\nA()", "an A"),
        ("[A(), 1]", "[an A, 1]"),
        ("class D(dict): pass\nD(a=1)", "{'a': 1}"),
        ("print", "<function print>"),
        (
            "class L:\n    def __reduce__(self): print('loud')\n    def __repr__(self): return '?'\nL()",
            "?",
        ),
        ("import os; os", None),
        ("'x' * 300_000", None),
    ],
)
def test_what_is_not_plain_or_not_small_is_its_text_and_none_of_its_code_is_called(with_kernel, code, text):
    result = with_kernel.run(code)
    assert result.pickled is None
    assert result.value == result.display_data[0].data["text/plain"]
    assert text is None or result.value.startswith(text[:8])
    assert result.stdout == ""


def test_a_result_without_a_last_expression_has_no_value(with_kernel):
    assert with_kernel.run("x = 1").value is None
    assert with_kernel.run("1;").value is None
    assert with_kernel.run("None").value is None
    assert with_kernel.run("1 / 0").value is None
    assert with_kernel.run("print(1); display(2)").value is None


def test_a_value_is_a_copy_of_what_it_was_then(with_kernel):
    result = with_kernel.run("kept = [1]; kept")
    with_kernel.run("kept.append(2)")
    result.value.append(3)
    assert result.value == [1]


def test_a_result_that_is_waited_for_has_its_value_too_as_long_as_the_host_keeps_it(face, with_kernel):
    execution_id = with_kernel.queue_cell(with_kernel.create_cell("{'answer': 42}"))
    other = face.session(with_kernel.notebook_id)
    other.connect()
    assert other.wait(execution_id).value == {"answer": 42}
    for n in range(MAX_RESULTS):
        assert with_kernel.run(str(n)).value == n
    assert other.wait(execution_id).value == "{'answer': 42}"
    other.close()


def test_a_pickle_that_calls_something_is_never_loaded(with_kernel, tmp_path):
    evil = tmp_path / "evil"
    code = (
        "from IPython.display import publish_display_data\n"
        "import base64, pickle, os\n"
        f"class Evil:\n    def __reduce__(self): return (os.mkdir, ({str(evil)!r},))\n"
        f"hook = get_ipython().displayhook\ncompute = hook.compute_format_data\n"
        f"hook.compute_format_data = lambda r: (compute(r)[0], {{{RESULT_KEY!r}: "
        "base64.b64encode(pickle.dumps(Evil())).decode()})\n"
        "'text'"
    )
    try:
        result = with_kernel.run(code)
        assert result.pickled is not None
        assert result.value == "'text'"
        assert not evil.exists()
    finally:
        with_kernel.run("hook.compute_format_data = compute")


def test_nothing_of_a_value_is_stored(shared_daemon, with_kernel):
    value = ("never-stored", b"\x13\x37" * 50)
    result = with_kernel.run("'never-' + 'stored', b'\\x13\\x37' * 50")
    assert result.value == value
    pickled = result.pickled
    assert pickled == dump_plain(value)
    stored = b"".join(path.read_bytes() for path in shared_daemon.rglob("*") if path.is_file())
    assert b"never-stored" in stored  # the text
    assert pickled not in stored
    assert base64.b64encode(pickled) not in stored
    assert with_kernel.get_cell(result.cell_id).outputs == result.outputs
    assert [dict(output.metadata) for output in result.outputs] == [{}]


# --- variables --------------------------------------------------------------------------------------------------------


def test_variables_are_put_and_got_between_two_processes(with_kernel):
    value = {"rows": [(n, str(n)) for n in range(1000)], "when": datetime.date(2026, 1, 1)}
    with_kernel.put("given", value)
    assert with_kernel.run("given['rows'][-1]").value == (999, "999")
    with_kernel.run("given['more'] = {1, 2}")
    assert with_kernel.get("given") == {**value, "more": {1, 2}}
    with_kernel.put("größe", 1)
    assert with_kernel.get("größe") == 1
    with_kernel.put("\ufb01le", 2)  # the ligature, which the parser takes for two letters
    assert with_kernel.run("\ufb01le, file").value == (2, 2)
    assert with_kernel.get("\ufb01le") == with_kernel.get("file") == 2


def test_neither_history_nor_counters_nor_names_are_touched(with_kernel):
    count = with_kernel.run("before = set(globals()); 'last'").execution_count
    cells = with_kernel.get_cell_ids()
    with_kernel.put("given", 1)
    with_kernel.get("given")
    with pytest.raises(VariableNotFound):
        with_kernel.get("missing")
    assert with_kernel.get_cell_ids() == cells
    result = with_kernel.run("_, sorted(set(globals()) - before - {'given', 'before'}), list(In)[-2:], list(Out)[-1]")
    last, names, history, out = result.value
    assert result.execution_count == count + 1
    assert last == "last"
    assert [name for name in names if not name.startswith("_")] == []
    assert history[0].startswith("before = ")
    assert out == count


@pytest.mark.parametrize("name", ["missing", "print", "a.b", "", "1", "a b", "x; import os"])
def test_a_name_that_there_is_not_is_told_as_such(with_kernel, name):
    with pytest.raises(VariableNotFound) as caught:
        with_kernel.get(name)
    assert isinstance(caught.value, NameError)
    assert caught.value.variable == name
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("bad = lambda: 1", "cannot be handed over: .*pickle"),
        ("import threading; bad = threading.Lock()", "cannot be handed over: TypeError: cannot pickle"),
        ("import sqlite3; bad = sqlite3.connect(':memory:')", "cannot be handed over: TypeError: cannot pickle"),
        ("class B:\n    def __reduce__(self): raise ValueError('not me')\nbad = B()", "ValueError: not me"),
        (f"bad = b'x' * {MAX_VALUE}", "takes more than 8 MiB when it is pickled; let the kernel write it into a file"),
        ("class C: pass\nbad = C()", "cannot be unpickled here: AttributeError"),
    ],
)
def test_a_variable_that_cannot_be_handed_over_says_why(with_kernel, code, reason):
    with_kernel.run(code)
    with pytest.raises(ValueRefused, match=reason) as caught:
        with_kernel.get("bad")
    assert isinstance(caught.value, ValueError)
    assert caught.value.variable == "bad"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda: 1, "The value for 'bad' cannot be pickled: .*pickle"),
        (threading.Lock(), "The value for 'bad' cannot be pickled: TypeError: cannot pickle"),
        (b"x" * MAX_VALUE, "The value for 'bad' takes more than 8 MiB when it is pickled; write it into a file"),
    ],
    ids=["function", "lock", "large"],
)
def test_a_value_that_cannot_be_handed_over_says_why(with_kernel, value, reason):
    with pytest.raises(ValueRefused, match=reason):
        with_kernel.put("bad", value)
    for name in (1, "class", "None"):
        with pytest.raises(VariableNotFound, match=f"not {name!r}"):
            with_kernel.put(name, 1)


def test_the_largest_values_pass_in_both_directions(with_kernel):
    value = os.urandom(MAX_VALUE - 1000)
    with_kernel.put("large", value)
    assert with_kernel.get("large") == value
    assert with_kernel.run("x = b'y' * 200_000; x").value == b"y" * 200_000
    assert MAX_RESULT > 200_000


def test_variables_are_got_and_put_while_a_cell_runs_and_changes_them(with_kernel):
    cell_id = with_kernel.create_cell("step, go, seen = 0, True, {}\nwhile go:\n    step += 1; seen[step] = step")
    execution_id = with_kernel.queue_cell(cell_id)
    wait_until(lambda: with_kernel.status().kernel_status == "busy", "it does not run")

    def step() -> Any:
        try:
            return with_kernel.get("step")
        except VariableNotFound:
            return 0

    wait_until(lambda: step() > 0, "it does not begin")
    first = with_kernel.get("step")
    wait_until(lambda: step() > first, "it stands still")
    with_kernel.put("go", False)
    assert with_kernel.wait(execution_id).success


@on_one_face
def test_a_session_without_a_python_kernel_says_so(face, session, monkeypatch, tmp_path):
    with pytest.raises(NoKernel):
        session.get("x")
    with pytest.raises(NoKernel):
        session.put("x", 1)
    spec = tmp_path / "kernels" / "odd"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        '{"argv": ["python", "-c", "from ipykernel.kernelapp import main; main()", "-f", "{connection_file}"], '
        '"display_name": "odd", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    session.start_kernel("python", "kernelspec:odd")
    for call in (lambda: session.get("x"), lambda: session.put("x", 1)):
        with pytest.raises(
            RuntimedError, match="Variables are those of Python kernels: this session's kernel is another"
        ):
            call()
    assert session.run("[1, 2]").value == "[1, 2]"


@pytest.mark.parametrize("kind", [Session, AsyncSession, BrowserSession, AsyncBrowserSession, Client, AsyncClient])
def test_a_handle_is_neither_pickled_nor_copied_into_a_second_one_of_the_same_name(kind):
    handle = kind()
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied. Hand the session's id over"):
            copied(handle)


# --- tables -----------------------------------------------------------------------------------------------------------


def table(**columns: Any) -> pandas.DataFrame:
    return pandas.DataFrame(columns or {"n": [1, 2, 3], "x": [0.5, None, 2.5]}, index=pandas.Index([7, 8, 9], name="i"))


def test_tables_travel_as_arrow_and_come_back_the_same(with_kernel):
    pytest.importorskip("pyarrow")
    sizes: list[int] = []
    for value in (table(), {"in": [table()]}, table(when=pandas.date_range("2026-01-01", periods=3, tz="UTC"))):
        assert b"open_stream" in dump(value, arrow=True)
        with_kernel.put("frame", value, arrow=True, on_size=sizes.append)
        with_kernel.run("import pickle; frame = pickle.loads(pickle.dumps(frame))")
        back = with_kernel.get("frame", arrow=True, on_size=sizes.append)
        first, second = (one["in"][0] if isinstance(one, dict) else one for one in (value, back))
        pandas.testing.assert_frame_equal(first, second, check_freq=False)
        assert sizes[-1] == sizes[-2] == len(dump(value, arrow=True))


def test_what_arrow_would_change_is_pickled(with_kernel):
    frame = table(a=[(1,), [2], {"three"}])
    assert b"open_stream" not in dump(frame, arrow=True)
    with_kernel.put("frame", frame, arrow=True)
    assert list(with_kernel.get("frame", arrow=True)["a"]) == [(1,), [2], {"three"}]


def test_a_kernel_without_pyarrow_gets_and_gives_pickled_tables(with_kernel):
    pytest.importorskip("pyarrow")
    with_kernel.run("import sys; before = sys.modules.get('pyarrow'); sys.modules['pyarrow'] = None")
    try:
        sizes: list[int] = []
        numbers = pandas.DataFrame([[1, 2.5]])  # its labels are numbers, too: texts may need pyarrow themselves
        with_kernel.put("frame", numbers, arrow=True, on_size=sizes.append)
        assert sizes == [len(dump(numbers))]
        pandas.testing.assert_frame_equal(with_kernel.get("frame", arrow=True), numbers)
    finally:
        with_kernel.run("sys.modules.pop('pyarrow'); before and sys.modules.update(pyarrow=before)")
