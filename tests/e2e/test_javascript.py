"""An exported document in Automerge for JavaScript: another implementation reads the same notebook and its history."""

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


def test_the_exported_document_is_the_same_notebook_in_javascript(shared_daemon: Path, tmp_path: Path) -> None:
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(tmp_path), "@automerge/automerge@3"]
    subprocess.run(install, check=True, capture_output=True)
    (tmp_path / "read.mjs").write_text(READ)
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
    command = ["node", str(tmp_path / "read.mjs"), str(tmp_path / "doc.automerge")]
    read = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
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
