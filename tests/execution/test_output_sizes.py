"""What an event weighs for whoever keeps all outputs of its execution."""

from runtimed.execution.output_sizes import ERRORS_FREE, Measure, OutputSizes
from runtimed.protocol.events import Clear, Display, Failed, Finished, Queued, Started, Stream

BLOB = {"t": "blob", "sha256": "a" * 64, "size": 5_000_000, "text": False}


def shown(
    display_id: str | None = None, kind: str = "display_data", execution_id: str = "e", **data: object
) -> Display:
    return Display(at=0, execution_id=execution_id, kind=kind, data=data or {"a/b": "x"}, display_id=display_id)  # type: ignore[arg-type]


def test_texts_and_displays_weigh_what_they_are_and_what_they_refer_to():
    sizes = OutputSizes()
    assert sizes.measure(Stream(at=0, execution_id="e", name="stdout", text="x"), 100) == Measure(100)
    assert sizes.measure(shown(), 70) == Measure(70)
    assert sizes.measure(shown(value=BLOB), 150) == Measure(5_000_150, blobs=("a" * 64,))


def test_what_is_no_output_weighs_nothing():
    sizes = OutputSizes()
    for event in (Queued(at=0, author="ann"), Started(at=0), Finished(at=0, status="ok")):
        assert sizes.measure(event, 1000) == Measure()


def test_an_update_weighs_as_much_as_it_is_larger_than_all_before():
    sizes = OutputSizes()
    measured = [
        sizes.measure(shown("d", kind), size).output
        for kind, size in [
            ("display_data", 100),
            ("update_display_data", 80),
            ("update_display_data", 130),
            ("update_display_data", 100),
            ("update_display_data", 131),
            ("display_data", 50),
            ("update_display_data", 131),
        ]
    ]
    assert measured == [100, 0, 30, 0, 1, 50, 0]


def test_an_update_of_what_another_execution_shows_weighs_once():
    sizes = OutputSizes()
    updates = [sizes.measure(shown("d", "update_display_data"), 100).output for _ in range(3)]
    others = [sizes.measure(shown("d", "update_display_data", "other"), 100).output for _ in range(2)]
    assert (updates, others) == ([100, 0, 0], [100, 0])


def test_a_clear_forgets_what_was_shown():
    sizes = OutputSizes()
    sizes.measure(shown("d"), 100)
    sizes.measure(shown("d", execution_id="other"), 100)
    assert sizes.measure(Clear(at=0, execution_id="e", wait=True), 50) == Measure(clears=True)
    assert sizes.measure(shown("d", "update_display_data"), 100).output == 100
    assert sizes.measure(shown("d", "update_display_data", "other"), 100).output == 0


def test_errors_weigh_nothing_unless_there_are_very_many():
    sizes = OutputSizes()
    error = Failed(at=0, execution_id="e", ename="E", evalue="e")
    half = ERRORS_FREE // 2
    assert [sizes.measure(error, half).output for _ in range(3)] == [None, None, half]
    assert sizes.measure(Failed(at=0, execution_id="other", ename="E", evalue="e"), half).output is None


def test_however_many_executions_there_are_few_are_remembered():
    sizes = OutputSizes()
    for n in range(5000):
        sizes.measure(shown("d", execution_id=f"e{n}"), 100)
        sizes.measure(Failed(at=0, execution_id=f"e{n}", ename="E", evalue="e"), 10)
        assert sizes.remembered <= 2 * 1000
    assert sizes.measure(shown("d", "update_display_data", "e4999"), 100).output == 0


def test_what_other_executions_show_is_remembered_until_the_one_that_updates_it_has_ended():
    sizes = OutputSizes()
    sizes.measure(shown("d", execution_id="other"), 100)
    assert [sizes.measure(shown("d", "update_display_data"), 100).output for _ in range(3)] == [100, 0, 0]
    sizes.measure(Finished(at=0, execution_id="e", status="ok"), 20)
    assert sizes.remembered == 1, "what the other one shows"
    assert sizes.measure(shown("d", "update_display_data", "other"), 100).output == 0


def test_a_forgotten_execution_counts_as_new():
    sizes = OutputSizes()
    for execution_id in ("a", "b"):
        sizes.measure(shown("d", execution_id=execution_id), 100)
    sizes.forget("a")
    assert [sizes.measure(shown("d", "update_display_data", one), 100).output for one in ("a", "b")] == [100, 0]
    sizes.forget()
    assert sizes.remembered == 0
