"""Which executions show which displays: as a plain set of pairs would have it, in little memory."""

import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtimed.daemon.rooms.displays import Displays

FEW = st.integers(0, 4)
STEPS = st.lists(st.one_of(st.tuples(st.just("show"), FEW, FEW), st.tuples(st.just("forget"), FEW)), max_size=60)


@given(STEPS)
def test_displays_are_shown_by_who_showed_them_and_was_not_forgotten(steps: list[Any]) -> None:
    displays, model = Displays(), dict[tuple[str, str], None]()
    for step in steps:
        match step:
            case ("show", display, execution):
                displays.show(f"d{display}", f"e{execution}", f"c{execution % 2}")
                model[f"d{display}", f"e{execution}"] = None
            case ("forget", execution):
                displays.forget(f"e{execution}")
                model = {pair: None for pair in model if pair[1] != f"e{execution}"}
        cells = {f"e{execution}": f"c{execution % 2}" for execution in range(5)}
        for display in range(5):
            expected = [(execution, cells[execution]) for one, execution in model if one == f"d{display}"]
            assert displays.where(f"d{display}") == expected
        assert len(displays) == len({display for display, _ in model})
        shown = {execution for _, execution in model}
        assert sorted(displays.of_cells({"c1"})) == sorted((one, "c1") for one in shown if cells[one] == "c1")
        assert displays.of_cells(()) == []


def test_a_hundred_thousand_displays_cost_little_more_than_their_ids_and_nothing_when_they_are_forgotten() -> None:
    ids = [f"{n:032x}" for n in range(100_000)]
    displays = Displays()
    tracemalloc.start()
    try:
        for display_id in ids:
            displays.show(display_id, "e", "c")
        assert tracemalloc.get_traced_memory()[0] / len(ids) < 150
        displays.forget("e")
        assert len(displays) == 0
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()
