"""Fractional index keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.document.positions import between, is_position, spread


@given(st.lists(st.integers(min_value=0, max_value=10_000), max_size=150))
def test_a_position_lies_strictly_between_its_neighbours_wherever_it_is_inserted(places: list[int]):
    keys: list[str] = []
    for place in places:
        at = place % (len(keys) + 1)
        low = keys[at - 1] if at else None
        high = keys[at] if at < len(keys) else None
        key = between(low, high)
        assert is_position(key)
        assert low is None or low < key
        assert high is None or key < high
        keys.insert(at, key)
    assert keys == sorted(set(keys))


@pytest.mark.parametrize("front", [True, False])
def test_ten_thousand_cells_added_at_one_end_have_short_positions(front: bool):
    key = between(None, None)
    longest = 0
    for _ in range(10_000):
        following = between(None, key) if front else between(key, None)
        assert following < key if front else following > key
        key = following
        longest = max(longest, len(key))
    assert longest == 4


@pytest.mark.parametrize("upwards", [True, False])
def test_ten_thousand_insertions_at_one_place_never_run_out(upwards: bool):
    low, high = "a0", "a1"
    for _ in range(10_000):
        key = between(low, high)
        assert low < key < high
        low, high = (key, high) if upwards else (low, key)
    assert len(key) < 2_100


@given(st.integers(min_value=0, max_value=300), st.booleans(), st.booleans())
def test_many_positions_at_once_are_ascending_between_their_neighbours(count: int, open_low: bool, open_high: bool):
    low, high = None if open_low else "a3", None if open_high else "a4"
    keys = spread(low, high, count)
    assert len(keys) == count
    assert keys == sorted(set(keys))
    assert all((low is None or low < key) and (high is None or key < high) for key in keys)


@pytest.mark.parametrize("integer", ["z" * 27, "A" + "0" * 25 + "1"])
def test_there_is_room_beyond_the_last_integer_parts(integer: str):
    assert is_position(integer)
    below, above = between(None, integer), between(integer, None)
    assert between(None, below) < below < integer < above < between(above, None)
    assert all(map(is_position, (below, above)))


@pytest.mark.parametrize(
    "text", ["", "0", "a", "b0", "a00", "a0V0", "ä0", "a-", "A" + "0" * 26, "a0 ", "\0", "9", "a0\n"]
)
def test_a_text_that_is_no_position_is_refused(text: str):
    assert not is_position(text)
    with pytest.raises(ValueError, match="not a position"):
        between(text, None)
    with pytest.raises(ValueError, match="not a position"):
        between(None, text)


@pytest.mark.parametrize(("low", "high"), [("a1", "a1"), ("a2", "a1")])
def test_nothing_lies_between_bounds_that_are_not_ascending(low: str, high: str):
    with pytest.raises(ValueError, match="is not below"):
        between(low, high)
