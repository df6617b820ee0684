"""A session's document in Automerge for JavaScript: another implementation reads it, and its edits merge back."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from runtimed import Session

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node and npm"),
    pytest.mark.timeout(180),
]

READ: Final = """
import { readFileSync } from 'node:fs';
import * as Automerge from '@automerge/automerge';
const document = Automerge.load(new Uint8Array(readFileSync(process.argv[2])));
console.log(JSON.stringify({ content: Automerge.toJS(document), changes: Automerge.getHistory(document).length }));
"""

EDIT: Final = """
import { readFileSync, writeFileSync } from 'node:fs';
import * as Automerge from '@automerge/automerge';
const [path, first, second] = process.argv.slice(2);
let document = Automerge.load(new Uint8Array(readFileSync(path)));
document = Automerge.change(document, d => Automerge.splice(d, ['cells', first, 'source'], 0, 0, '# 😀 there\\n'));
document = Automerge.change(document, d => {
  d.cells['from-javascript'] = {
    cell_type: 'markdown', source: '# Made there', position: 'a0V', execution_count: null, execution_id: null,
    metadata: { tags: '["js"]' },
  };
});
document = Automerge.change(document, d => {
  delete d.cells[second];
  d.cells[first].cell_type = 'raw';
  d.cells[first].metadata.tags = '["c"]';
  d.metadata.key = 'there';
});
writeFileSync(path, Automerge.save(document));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Automerge for JavaScript, and the programs `read.mjs` and `edit.mjs`."""
    folder = tmp_path_factory.mktemp("node")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "@automerge/automerge@3"]
    subprocess.run(install, check=True, capture_output=True)
    (folder / "read.mjs").write_text(READ)
    (folder / "edit.mjs").write_text(EDIT)
    return folder


def run(program: Path, *arguments: object) -> str:
    return subprocess.run(["node", program, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def test_the_exported_document_is_the_same_notebook_in_javascript(
    shared_daemon: Path, node: Path, tmp_path: Path
) -> None:
    with Session("for-javascript") as session:
        first = session.create_cell("print('ä 😀')")
        session.set_source(first, "print('ä 😀', 2)")
        session.set_cell_metadata(first, "tags", ["a", "b"])
        second = session.create_cell("# Title", cell_type="markdown", index=0)
        session.set_metadata("key", "value")
        exported = session.export("automerge")
        cells = {cell.id: cell for cell in session.get_cells()}
    assert isinstance(exported, bytes)
    (tmp_path / "doc.automerge").write_bytes(exported)
    read = json.loads(run(node / "read.mjs", tmp_path / "doc.automerge"))
    assert read["content"]["notebook_id"] == "for-javascript"
    assert read["content"]["metadata"] == {"key": "value"}
    assert {
        cell_id: (cell["cell_type"], cell["source"], cell["position"], cell["metadata"])
        for cell_id, cell in read["content"]["cells"].items()
    } == {
        first: ("code", "print('ä 😀', 2)", cells[first].position, {"tags": '["a","b"]'}),
        second: ("markdown", "# Title", cells[second].position, {}),
    }
    assert read["changes"] >= 5  # each edit is there


def test_edits_in_javascript_merge_with_those_made_meanwhile(shared_daemon: Path, node: Path, tmp_path: Path) -> None:
    path = tmp_path / "doc.automerge"
    with Session("from-javascript") as session:
        first, second = session.create_cell("one\n"), session.create_cell("two")
        path.write_bytes(session.export("automerge"))
        run(node / "edit.mjs", path, first, second)
        session.append_source(first, "here\n")
        session.set_cell_metadata(first, "mine", 1)

        opened = session.import_notebook(path)

        assert (opened.added, opened.changed, opened.deleted) == (("from-javascript",), (first,), (second,))
        cells = {cell.id: (cell.cell_type, cell.source, dict(cell.metadata)) for cell in session.get_cells()}
        assert cells == {
            first: ("raw", "# 😀 there\none\nhere\n", {"tags": ["c"], "mine": 1}),
            "from-javascript": ("markdown", "# Made there", {"tags": ["js"]}),
        }
        assert session.get_metadata("key") == "there"
        assert session.import_notebook(path).changed == ()
        # The JavaScript that goes on with what it has gets this side's edits, too.
        path.write_bytes(session.export("automerge"))
        read = json.loads(run(node / "read.mjs", path))
        assert {cell_id: cell["source"] for cell_id, cell in read["content"]["cells"].items()} == {
            cell_id: source for cell_id, (_type, source, _metadata) in cells.items()
        }
