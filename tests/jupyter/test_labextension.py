"""The extension of JupyterLab that is installed is the one that its source makes."""

import json

from tests.labextension import BUILT, digest


def test_what_is_built_is_built_from_this_source() -> None:
    assert (BUILT / "source.sha256").read_text().strip() == digest(), "build it anew: python -m tests.labextension"


def test_what_it_loads_is_there() -> None:
    package = json.loads((BUILT / "package.json").read_text())
    assert (BUILT / package["jupyterlab"]["_build"]["load"]).is_file()
