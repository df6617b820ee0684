"""Edits between two texts, and edits carried over to a third."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from runtimed.document.text_edit import TextEdit, apply_edits, carry_over, find_edit, find_edits

TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(["a = 1\n", "b = f(a, b)\n", "\n", "print(a)\n", "x", "é\0😀", "\r\n", "  return a"]),
        max_size=20,
    ).map("".join),
)


@given(TEXTS, TEXTS)
def test_one_edit_reproduces_the_new_text(old: str, new: str):
    assert apply_edits(old, [find_edit(old, new)]) == new


@given(TEXTS, TEXTS)
def test_the_edits_reproduce_the_new_text_in_ascending_order(old: str, new: str):
    edits = find_edits(old, new)
    assert apply_edits(old, edits) == new
    assert all(one.start + one.deleted <= other.start for one, other in pairwise(edits))
    assert all(edit.deleted or edit.inserted for edit in edits)


def test_one_edit_is_what_lies_between_the_common_ends():
    assert find_edit("print(1)", "print(2)") == TextEdit(6, 1, "2")
    assert find_edit("aaa", "aa") == TextEdit(2, 1, "")
    assert find_edit("aa", "aaa") == TextEdit(2, 0, "a")
    assert find_edit("same", "same") == TextEdit(4, 0, "")


def test_edits_far_apart_stay_apart():
    old = "import os\n\ndef f(x):\n    return x\n\nprint(f(1))\n"
    new = "import sys\n\ndef f(x):\n    return x\n\nprint(f(2))\n"
    assert find_edits(old, new) == [TextEdit(7, 1, "sy"), TextEdit(43, 1, "2")]


def test_edits_at_both_ends_of_one_line_stay_apart():
    assert find_edits("foo(a, b)", "bar(a, c)") == [TextEdit(0, 3, "bar"), TextEdit(7, 1, "c")]


def test_twenty_thousand_repeated_lines_are_compared_without_a_search_of_all_pairs():
    old, new = "\n" * 5000 + "x\n" * 7000, "y\n" + "x\n" * 6000 + "\n" * 7000
    assert apply_edits(old, find_edits(old, new)) == new


def carried(base: str, mine: str, theirs: str) -> str:
    """Carry the edits base → mine over to `theirs`."""
    edits = carry_over(find_edits(base, mine), base, theirs)
    assert all(one.start + one.deleted <= other.start for one, other in pairwise(edits))
    return apply_edits(theirs, edits)


@given(TEXTS, TEXTS)
def test_an_edit_carried_over_to_the_same_text_gives_the_new_text(base: str, mine: str):
    assert carried(base, mine, base) == mine


@given(TEXTS, TEXTS)
def test_no_edit_carried_over_leaves_the_text_of_the_others(base: str, theirs: str):
    assert carried(base, base, theirs) == theirs


@given(TEXTS, TEXTS)
def test_an_edit_that_is_there_already_is_not_made_twice(base: str, mine: str):
    assert carried(base, mine, mine) == mine


@given(TEXTS, TEXTS, TEXTS)
def test_edits_carried_over_to_any_text_are_ascending_and_within_it(base: str, mine: str, theirs: str):
    carried(base, mine, theirs)


def test_edits_of_different_places_are_both_kept():
    assert carried("a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n") == "A\nb\nC\n"


def test_two_appended_lines_are_both_kept_the_earlier_one_first():
    assert carried("a\n", "a\nmine\n", "a\ntheirs\n") == "a\ntheirs\nmine\n"


def test_a_line_put_before_one_that_others_replaced_stays_before_it():
    assert carried("a\nb\nc\n", "a\nX\nb\nc\n", "a\nBBB\nc\n") == "a\nX\nBBB\nc\n"


def test_a_line_put_behind_one_that_others_replaced_stays_behind_it():
    assert carried("a\nb\nc\n", "a\nb\nX\nc\n", "a\nBBB\nc\n") == "a\nBBB\nX\nc\n"


def test_what_others_inserted_into_a_deleted_stretch_stays():
    assert carried("abcdef", "af", "abcXdef") == "aXf"
