"""A data folder that an earlier release wrote opens with everything in it.

Release 0.1.0 wrote `data/release-0.1.0.tar.xz` with automerge 1.0.0rc1: `archive`, 303 cells as a snapshot and 353
changes, and `compacted`, 66 cells after a compaction; both hold sources of 30,000 code points, outputs, errors and
metadata. `expected.json` in it is what a client of that release read before the daemon ended.
"""

import dataclasses
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from runtimed import Client, Session

RELEASE = Path(__file__).parent / "data" / "release-0.1.0.tar.xz"


@pytest.fixture
def expected(data_dir: Path) -> dict[str, Any]:
    with tarfile.open(RELEASE) as archive:
        archive.extractall(data_dir, filter="data")
    document: dict[str, Any] = json.loads((data_dir / "expected.json").read_bytes())
    # That release gave a cell's metadata as the texts that it stored.
    metadata = [cell["metadata"] for stored in document.values() for cell in stored["cells"] if cell["metadata"]]
    assert metadata[0] == {"tags": json.dumps(["one", "zwei ü"])}
    for texts in metadata:
        texts.update({key: json.loads(text) for key, text in texts.items()})
    return document


def cells_of(session: Session) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(
        json.dumps([dataclasses.asdict(cell) for cell in session.get_cells()], default=str)
    )
    return cells


def test_a_folder_of_release_0_1_0_opens_with_everything_in_it(expected: dict[str, Any]):
    assert {name: len(stored["cells"]) for name, stored in expected.items()} == {"archive": 303, "compacted": 66}
    for name, stored in expected.items():
        with Session(name) as session:
            assert cells_of(session) == stored["cells"]
            assert {key: session.get_metadata(key) for key in stored["metadata"]} == stored["metadata"]


def test_the_history_of_a_notebook_of_release_0_1_0_begins_with_what_is_in_it(expected: dict[str, Any]):
    for name, stored in expected.items():
        with Session(name) as session:
            (begin,) = session.history()
            assert (begin.version, begin.action) == (0, "history_begins")
            first = stored["cells"][0]["id"]
            session.append_source(first, "\n# new")
            assert [(cell.id, cell.source) for cell in session.get_version(0).cells] == [
                (cell["id"], cell["source"]) for cell in stored["cells"]
            ]
            *old, new = session.blame(first)
            assert {line.edit for line in old} == {begin}
            assert (new.text, new.edit and new.edit.version) == ("# new", 1)
            session.restore(0)
            assert cells_of(session)[1:] == stored["cells"][1:]


def test_sources_of_release_0_1_0_are_edited_and_merged(expected: dict[str, Any]):
    """Short ones are texts in its documents, long ones plain strings."""
    chosen = {
        name: {
            cell["id"]: cell["source"]
            for number, cell in enumerate(stored["cells"])
            if len(cell["source"]) > 20_000 or number % 50 == 0
        }
        for name, stored in expected.items()
    }
    assert max(len(source) for sources in chosen.values() for source in sources.values()) > 20_000
    for name, sources in chosen.items():
        with Session(name) as session:
            for cell_id, source in sources.items():
                session.append_source(cell_id, "# behind é😀\n")
                session.set_source(cell_id, "# before\n" + source + "# behind é😀\n")
    Client().shutdown()
    for name, stored in expected.items():
        with Session(name) as session:
            for cell in stored["cells"]:
                edited = cell["id"] in chosen[name]
                source = "# before\n" + cell["source"] + "# behind é😀\n" if edited else cell["source"]
                assert session.get_cell_source(cell["id"]) == source
