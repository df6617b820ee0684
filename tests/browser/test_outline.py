"""Outlines as text: read, numbered anew, cut, filtered, compared. No browser here."""

import pytest

from runtimed.browser import outline, views
from runtimed.browser.outline import Known
from runtimed.pages import Element

SNAPSHOT = """\
- generic [active] [ref=e1]:
  - heading "Shop [ref=e9]" [level=1] [ref=e2]
  - 'button "Say: \\"it''s\\"" [ref=e3]'
  - link "Home" [ref=e4] [cursor=pointer]:
    - /url: /
  - list [ref=e5]:
    - listitem [ref=e6]:
      - link "More" [ref=e7] [cursor=pointer]:
        - /url: /1
    - listitem [ref=e8]:
      - link "More" [ref=e10] [cursor=pointer]:
        - /url: /2
  - iframe [ref=e11]:
    - button "Inside" [ref=f1e2]
    - iframe [ref=f1e3]:
      - textbox "Deep" [ref=f2e1]: "typed: text"
  - generic [ref=e12] [cursor=pointer]: Not a button
  - text: the end"""

NUMBERS = {"": "d1", "f1": "d2", "f2": "d3"}


@pytest.fixture
def lines():
    return outline.read_outline(SNAPSHOT, NUMBERS.__getitem__)


def test_refs_get_the_number_of_their_document_and_nothing_else_changes(lines):
    text = views.text_of(lines)

    expected = SNAPSHOT
    for theirs, ours in (("[ref=f1e", "[ref=d2e"), ("[ref=f2e", "[ref=d3e"), ("[ref=e", "[ref=d1e")):
        expected = expected.replace(theirs, ours)
    assert text == expected.replace("Shop [ref=d1e9]", "Shop [ref=e9]")


def test_elements_have_the_names_and_selectors_that_the_page_tells(lines):
    known = {
        "d1e4": Known(selector='role=link[name="Home"]', name="Home"),
        "d1e6": Known(name="More"),
        "d1e1": Known(selector="body", acting=True),
    }

    assert outline.elements(lines, known) == {
        element.ref: element
        for element in [
            Element("d1e1", "generic", "", "body"),
            Element("d1e2", "heading", "Shop [ref=e9]", None),
            Element("d1e3", "button", 'Say: "it\'s"', None),
            Element("d1e4", "link", "Home", 'role=link[name="Home"]'),
            Element("d1e5", "list", "", None),
            Element("d1e6", "listitem", "More", None),
            Element("d1e7", "link", "More", None),
            Element("d1e8", "listitem", "", None),
            Element("d1e10", "link", "More", None),
            Element("d1e11", "iframe", "", None),
            Element("d2e2", "button", "Inside", None),
            Element("d2e3", "iframe", "", None),
            Element("d3e1", "textbox", "Deep", None),
            Element("d1e12", "generic", "Not a button", None),
        ]
    }


def test_each_frame_has_its_part_of_the_outline(lines):
    assert [(part.owner, [line.ref for line in part.lines if line.ref]) for part in outline.parts(lines)] == [
        (None, ["d1e1", "d1e2", "d1e3", "d1e4", "d1e5", "d1e6", "d1e7", "d1e8", "d1e10", "d1e11", "d1e12"]),
        ("d1e11", ["d2e2", "d2e3"]),
        ("d2e3", ["d3e1"]),
    ]


def test_only_what_people_operate(lines):
    assert views.text_of(views.interactive(lines, {})) == "\n".join(
        [
            "- 'button \"Say: \\\"it''s\\\"\" [ref=d1e3]'",
            '- link "Home" [ref=d1e4]',
            '- link "More" [ref=d1e7]',
            '- link "More" [ref=d1e10]',
            '- button "Inside" [ref=d2e2]',
            '- textbox "Deep" [ref=d3e1]: "typed: text"',
            "- generic [ref=d1e12]: Not a button",
        ]
    )


def test_a_part_of_it(lines):
    part = views.subtree(lines, "d1e6")

    assert part is not None
    assert views.text_of(part) == (
        '- listitem [ref=d1e6]:\n  - link "More" [ref=d1e7] [cursor=pointer]:\n    - /url: /1'
    )
    assert views.text_of(views.shallow(part, 1)) == "- listitem [ref=d1e6]:"
    assert views.subtree(lines, "d9e9") is None


def test_a_text_is_cut_behind_a_line():
    assert views.at_most("one\ntwo\nthree", 8) == ("one\ntwo", 6, None)
    assert views.at_most("one\ntwo\nthree", 13) == ("one\ntwo\nthree", 0, None)
    assert views.at_most("one\ntwo\nthree", None) == ("one\ntwo\nthree", 0, None)
    assert views.at_most("onetwothree", 3) == ("one", 8, None)


@pytest.mark.parametrize(
    ("limit", "least", "kept", "following"),
    [
        (60, 1, 2, "d1e3"),
        (40, 1, 2, "d1e3"),  # the text goes with the link
        (30, 1, 1, "d1e2"),
        (30, 2, None, "d1e3"),  # two lines at least, and so a part of the second
        (10, 1, None, "d1e2"),
        (10, 3, None, None),
    ],
)
def test_an_outline_is_cut_before_a_line_with_a_ref_and_goes_on_there(limit, least, kept, following):
    text = "- link [ref=d1e1]\n- link [ref=d1e2]\n- link [ref=d1e3]:\n  - text: some words"
    lines = text.split("\n")
    wanted = text[:limit] if kept is None else "\n".join(lines[:kept])

    assert views.at_most(text, limit, least) == (wanted, len(text) - len(wanted), following)


def test_a_difference_shows_what_came_and_went_and_where(lines):
    now = outline.read_outline(
        SNAPSHOT.replace('"Home" [ref=e4]', '"House" [ref=e13]').replace("- text: the end", "- text: the very end"),
        NUMBERS.__getitem__,
    )

    assert views.difference(lines, now) == "\n".join(
        [
            "@ - generic [active] [ref=d1e1]",
            '-   - link "Home" [ref=d1e4] [cursor=pointer]:',
            '+   - link "House" [ref=d1e13] [cursor=pointer]:',
            "@ - generic [active] [ref=d1e1]",
            "-   - text: the end",
            "+   - text: the very end",
        ]
    )
    assert views.difference(lines, lines) == ""


def rows(names: str, first: int, role: str = "row") -> str:
    return "\n".join(
        [
            "- table [ref=e1]:",
            *(
                line
                for number, name in enumerate(names.split())
                for line in (
                    f'  - row "{name} Edit" [ref=e{first + 3 * number}]:' if role == "row" else "  - listitem:",
                    f'    - cell "{name}" [ref=e{first + 3 * number + 1}]',
                    f'    - button "Edit" [ref=e{first + 3 * number + 2}]',
                )
            ),
        ]
    )


ONE = '- generic [ref=e1]:\n  - link "Home" [ref=e2]'


@pytest.mark.parametrize(
    ("before", "gone", "now", "nearest"),
    [
        (ONE, "e2", ONE.replace("e2", "e9"), "e9"),
        (ONE, "e2", ONE.replace("e2", "e9").replace("Home", "Homes"), "e9"),
        (ONE, "e2", ONE.replace("e2", "e9").replace("link", "button"), "e9"),
        (ONE, "e2", ONE.replace("e2", "e9").replace("Home", "Completely different"), None),
        (ONE, "e2", ONE.replace("e2", "e8") + '\n  - link "Home" [ref=e9]', None),
        # What is left of several was another record all the time.
        (rows("a b c", 10), "e15", rows("a", 10) + rows("c", 16), None),
        # All of them were rendered again, with one less or more, or in another order.
        (rows("a b c", 10), "e15", rows("a b c", 30), "e35"),
        (rows("a b c", 10), "e15", rows("z c b", 30), "e38"),
        (rows("a b c", 10), "e15", rows("a c", 30), None),
        (rows("a b c", 10), "e15", rows("c", 30), None),
        (rows("a b c", 10), "e15", rows("b", 30), "e32"),
        (rows("a b b", 10), "e15", rows("a b b", 30), None),
        (rows("a b c", 10, "listitem"), "e15", rows("b c", 30, "listitem"), "e32"),
        (rows("a b c", 10, "listitem"), "e15", rows("c d", 30, "listitem"), None),
    ],
)
def test_the_nearest_element_is_what_has_taken_the_place_of_the_one_that_is_gone(before, gone, now, nearest):
    earlier, later = (outline.read_outline(text, lambda _: "d1") for text in (before, now))
    known = {line.ref for line in earlier if line.ref is not None}

    found = views.nearest(f"d1{gone}", earlier, known, later)

    assert (None if found is None else found.ref) == (None if nearest is None else f"d1{nearest}")


def test_frames_are_found_with_the_elements_that_hold_them():
    assert list(outline.frames(SNAPSHOT)) == [("f1", "e11"), ("f2", "f1e3")]


CHOOSING = """\
- combobox "Size" [ref=e1]:
  - option "S"
  - option "M" [selected]
- listbox "Ink" [ref=e2]:
  - option "Red" [ref=e3]
- link [ref=e4] [cursor=pointer]:
  - /url: /p/red
- link [ref=e5] [cursor=pointer]:
  - /url: /p/blue
  - img "Blue mug" [ref=e6]
- link [ref=e7] [cursor=pointer]:
  - /url: /p/green
  - generic [ref=e8]: Green mug
- generic [ref=e9] [cursor=pointer]:
  - heading "Grey mug" [level=3] [ref=e10]
  - paragraph [ref=e11]: 19,00 €
- generic "More" [ref=e12]
- generic [ref=e13]: plain editor
- generic [ref=e14]: text
- generic [ref=e15] [cursor=pointer]"""


def test_what_people_operate_says_what_it_is_and_what_can_be_chosen():
    lines = outline.read_outline(CHOOSING, NUMBERS.__getitem__)
    known = {"d1e12": Known(acting=True), "d1e13": Known(acting=True), "d1e7": Known(name="Green mug")}

    assert views.text_of(views.interactive(lines, known)) == "\n".join(
        [
            '- combobox "Size" [ref=d1e1]',
            '  - option "S"',
            '  - option "M" [selected]',
            '- listbox "Ink" [ref=d1e2]',
            '- option "Red" [ref=d1e3]',
            "- link [ref=d1e4]: /p/red",
            "- link [ref=d1e5]: Blue mug",
            "- link [ref=d1e7]: Green mug",
            "- generic [ref=d1e9]: Grey mug 19,00 €",
            '- generic "More" [ref=d1e12]',
            "- generic [ref=d1e13]: plain editor",
            "- generic [ref=d1e15]",
        ]
    )


def test_of_a_long_list_some_options_are_shown_and_the_one_that_is_chosen():
    options = "".join(f'\n  - option "{n}"{" [selected]" if n == 70 else ""}' for n in range(100))

    lines = views.interactive(outline.read_outline(f"- combobox [ref=e1]:{options}", NUMBERS.__getitem__), {})

    assert [line.text for line in lines] == [
        "- combobox [ref=d1e1]",
        *(f'- option "{n}"' for n in range(20)),
        '- option "70" [selected]',
        "- text: … 80 more options",
    ]


PASSWORDS = """\
- textbox "Password" [ref=e1]: hunter2
- textbox "Again" [ref=e2]:
  - /placeholder: as above
  - text: "hunter: 2"
- textbox "Empty" [ref=e3]
- textbox "Unseen": hunter3
- textbox "User": ada
- textbox "Name" [ref=e4]: hunter2
- text: hunter3"""


def test_password_fields_do_not_show_what_they_hold():
    lines = outline.read_outline(PASSWORDS, NUMBERS.__getitem__)
    known = {f"d1e{n}": Known(password=n < 4) for n in range(1, 5)}

    assert views.text_of(outline.masked(lines, known, {"hunter3"})) == "\n".join(
        [
            '- textbox "Password" [ref=d1e1]: •••',
            '- textbox "Again" [ref=d1e2]:',
            "  - /placeholder: as above",
            "  - text: •••",
            '- textbox "Empty" [ref=d1e3]',
            '- textbox "Unseen": •••',
            '- textbox "User": ada',
            '- textbox "Name" [ref=d1e4]: hunter2',
            "- text: hunter3",
        ]
    )
