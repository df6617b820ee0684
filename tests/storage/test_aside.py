"""Notes of what was set aside."""

import pytest

from runtimed.storage import aside


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"session_ids": ["\xff"], "at": 1.0}', b'{"\xff": "\xff"}'])
def test_a_note_that_cannot_be_read_is_named_and_replaced(tmp_path, content):
    registry = tmp_path / "registry.db"
    note = tmp_path / "registry.db.aside"
    note.write_bytes(content)

    (found,) = aside.list_aside(tmp_path)
    assert found.path == note
    assert "cannot be read" in found.found

    aside.note_sessions(registry, ["one"], 0.0)

    (found,) = aside.list_aside(tmp_path)
    assert "The rows of one in the list of sessions were found damaged" in found.found


@pytest.mark.parametrize("content", [b"", b'{"session_id": "\xff", "at": 1.0, "reason": ""}'])
def test_a_note_of_a_document_that_cannot_be_read_is_named(tmp_path, content):
    database = tmp_path / "one.db"
    (tmp_path / "one.db.aside").write_bytes(content)

    found = aside.document_aside(database)

    assert found is not None
    assert (found.path, found.advice) == (tmp_path / "one.db.aside", "open its session")
