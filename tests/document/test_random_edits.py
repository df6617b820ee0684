"""A hundred thousand random edits by three actors, compared with Python's strings."""

import random

import pytest

from runtimed.document.engine import GENESIS, ROOT, Engine, Node
from runtimed.document.text_edit import TextEdit, apply_edits, carry_over, find_edits
from runtimed.ids import CellId, ClientId, SessionId
from tests.document.edited import EditedDocument

pytestmark = pytest.mark.slow

ACTORS = [ClientId(letter * 32) for letter in "abc"]
PIECES = ["", "x", "a = 1\n", "é", "e\u0301", "😀🏽", "\0", "\r\n", "\u2028", "中文", "def f():\n    return 1\n"]
EDITS = 100_000
TEXTS = 50
IN_ONE_CHANGE = 20
MERGES = 500


def random_edits(numbers: random.Random, text: str, count: int) -> list[TextEdit]:
    """Return ascending edits of a text, which keep it about as long as it is."""
    places = sorted(numbers.randrange(len(text) + 1) for _ in range(count))
    edits = []
    for place, following in zip(places, [*places[1:], len(text)], strict=True):
        wanted = numbers.choice((0, 1, 4, 12)) if len(text) > 1000 else 0
        edits.append(TextEdit(place, min(wanted, following - place), numbers.choice(PIECES)))
    return edits


@pytest.mark.parametrize("seed", range(TEXTS))
def test_edits_of_one_text_agree_with_a_string(seed: int):
    numbers = random.Random(seed)
    engine = Engine(GENESIS)
    with engine.write(ACTORS[0]) as writer:
        node = writer.put_text(ROOT, "text", "")
    text = ""
    for number in range(EDITS // TEXTS // IN_ONE_CHANGE):
        edits = random_edits(numbers, text, IN_ONE_CHANGE)
        with engine.write(ACTORS[number % 3]) as writer:
            writer.edit_text(node, edits)
        text = apply_edits(text, edits)
        assert engine.text(node) == text
    assert len(text) > 500
    loaded = Engine(engine.save())
    found = loaded.get(ROOT, "text")
    assert isinstance(found, Node)
    assert loaded.text(found.id) == text


def test_edits_upon_what_each_actor_has_seen_agree_with_strings():
    """Each actor edits the text that it saw last, while the others have edited the document since."""
    numbers = random.Random(2)
    document = EditedDocument.create(SessionId("n"))
    cell_id = CellId("c")
    document.add_cell(cell_id, "", "code", author=ACTORS[0])
    text = ""
    seen = dict.fromkeys(ACTORS, "")
    for _ in range(MERGES):
        actor = numbers.choice(ACTORS)
        base = seen[actor]
        mine = apply_edits(base, random_edits(numbers, base, 3))
        document.set_source(cell_id, mine, base=base, author=actor)
        edits = find_edits(text, mine) if base == text else carry_over(find_edits(base, mine), base, text)
        text = apply_edits(text, edits)
        record = document.cell(cell_id)
        assert record is not None
        assert record.source == text
        if numbers.random() < 0.7:
            seen[actor] = text
    loaded = EditedDocument.load(None, document.history()).cell(cell_id)
    assert loaded == document.cell(cell_id)
