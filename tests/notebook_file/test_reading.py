"""What the text of an .ipynb file becomes: cells of every format, or a sentence that says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtimed.errors import NotebookFileError
from runtimed.notebook_file.reading import FileCell, NotebookFile, read_notebook

PATH = Path("/home/ann/note.ipynb")


def test_sources_in_lines_are_joined_and_cells_without_an_id_get_one_that_stays():
    metadata = {"kernelspec": {"name": "ir", "language": "R"}, "runt": {"uv": {"dependencies": ["six"]}}}
    cells = [
        {"cell_type": "code", "id": "one", "source": ["import six\n", "six"], "metadata": {"tags": ["a"]}},
        {"cell_type": "markdown", "metadata": {}, "source": "# title"},
    ]
    text = json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": cells})
    found = read_notebook(text, PATH)
    assert found == NotebookFile(
        metadata=metadata,
        cells=(
            FileCell(id="one", cell_type="code", source="import six\nsix", metadata={"tags": ["a"]}),
            FileCell(id="cell-043dfc90-276a-5ca4-b9d7-42c82db8ab58", cell_type="markdown", source="# title"),
        ),
        version=(4, 4),
    )
    assert (found.language, found.kernel_name) == ("r", "ir")
    assert read_notebook(text, PATH) == found


def test_a_notebook_of_format_3_is_converted():
    # Each worker collects all tests, and this takes it seconds.
    from nbformat import v3

    result = v3.new_output("pyout", output_text="2", output_png="aGk=", prompt_number=3)
    cells = [
        v3.new_code_cell(input="1 + 1", prompt_number=3, outputs=[v3.new_output("stream", output_text="a"), result]),
        v3.new_heading_cell(source="title", level=2),
    ]
    old = v3.writes_json(v3.new_notebook(worksheets=[v3.new_worksheet(cells=cells)]))
    found = read_notebook(old, PATH)
    assert [(cell.cell_type, cell.source) for cell in found.cells] == [("code", "1 + 1"), ("markdown", "## title")]
    assert (found.version, found.metadata, found.cells[0].execution_count) == ((3, 0), {}, 3)
    assert found.cells[0].outputs == (
        {"output_type": "stream", "name": "stdout", "text": "a"},
        {
            "output_type": "execute_result",
            "execution_count": 3,
            "data": {"text/plain": "2", "image/png": "aGk="},
            "metadata": {},
        },
    )
    assert read_notebook(old, PATH) == found


WHOLE = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}}
CELL = {"id": "a", "cell_type": "raw", "source": "", "metadata": {}}
CODE = {**CELL, "cell_type": "code"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "it is no notebook: Expecting property name"),
        ("[" * 100_000, "it is no notebook: "),
        ("[]", "it is no notebook$"),
        ("{}", "it is no notebook$"),
        ({"nbformat": 4}, "it is a damaged notebook: .*cells"),
        ({"nbformat": 3}, "it is a damaged notebook: .*"),
        (
            {"nbformat": 99, "cells": []},
            "it is a damaged notebook: it has the format 99, and formats up to 4 are known",
        ),
        ({"nbformat": "4", "cells": []}, "it is a damaged notebook: "),
        ({**WHOLE, "cells": [1]}, "it is a damaged notebook: "),
        ({**WHOLE, "cells": 1}, "it is a damaged notebook: .*int"),
        ({**WHOLE, "cells": [{"cell_type": "code", "metadata": {}}]}, "it is a damaged notebook: .*source"),
        ({**WHOLE, "cells": [{**CELL, "source": 1}]}, "it is a damaged notebook: the source of cell 1 is no text"),
        ({**WHOLE, "cells": [{**CELL, "cell_type": "odd"}]}, "it is a damaged notebook: cell 1 is of the type 'odd'"),
        ({**WHOLE, "cells": [CELL, CELL]}, "two of its cells have the id 'a'"),
        ({**WHOLE, "cells": [{**CODE, "outputs": [1]}]}, "it is a damaged notebook: "),
        ({**WHOLE, "cells": [{**CODE, "outputs": [{"output_type": "stream"}]}]}, "it is a damaged notebook: 'text'"),
        ({**WHOLE, "cells": [{**CELL, "attachments": {"a": 1}}]}, "it is a damaged notebook: "),
        ({**WHOLE, "cells": [{**CODE, "outputs": [{"output_type": "pyout"}]}]}, "it is a damaged notebook: .*'pyout'"),
    ],
)
def test_what_is_no_notebook_is_refused_with_a_sentence(content: Any, why: str):
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(NotebookFileError, match=f"^/home/ann/note.ipynb cannot be read: {why}"):
        read_notebook(text, PATH)
