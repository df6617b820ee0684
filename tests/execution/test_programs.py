"""How programs stand in the queue."""

import pytest

from runtimed.execution import programs


@pytest.mark.parametrize("rest", ["", "{", "{}", '"\udc80"', '{"\udc80": 1}', "that is what I call it"])
def test_a_source_that_begins_as_a_program_does_by_chance_is_a_source(rest):
    source = f"{programs.MARK}{rest}\nprint(1)"

    assert programs.split(source) == (source, None)
