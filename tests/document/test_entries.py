"""Values of a cell's metadata as texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.document.checks import MAX_SOURCE
from runtimed.document.entries import text_of, value_of
from runtimed.errors import InvalidCell

TEXTS = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


@given(JSON)
def test_every_json_value_comes_back(value):
    assert value_of(text_of(value)) == value


@pytest.mark.parametrize("text", ["", "word", "{", "[1,]", "NaN", '{"a": Infinity}', "[" * 100_000, "'a'"])
def test_a_text_that_is_no_json_stands_for_itself(text):
    assert value_of(text) == text


def test_a_value_has_the_size_of_its_text():
    assert len(text_of("x" * (MAX_SOURCE - 2))) == MAX_SOURCE
    with pytest.raises(InvalidCell, match=f"at most {MAX_SOURCE} bytes"):
        text_of("x" * (MAX_SOURCE - 1))
