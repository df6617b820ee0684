"""Which spare kernel fits which start."""

import os
from pathlib import Path

import pytest

from runtimed.environments.kinds import Kind, kind_of


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Something that lies where an interpreter would, with a folder of packages."""
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/lib/python3.12/site-packages").mkdir(parents=True)
    (tmp_path / "env/bin/python").touch()
    return tmp_path / "env/bin/python"


def kind(python: Path, source: str = "current", marker: str = "", **variables: str) -> Kind:
    found = kind_of(source, str(python), marker, {"HOME": "/home/me", **variables}, None)
    assert found is not None
    return found


def test_variables_that_can_be_changed_later_make_no_difference(python: Path) -> None:
    assert kind(python, PATH="/a", TERM="x", AWS_PROFILE="a", PWD="/a") == kind(python, PATH="/b", VIRTUAL_ENV="/b")


@pytest.mark.parametrize(
    "name", ["PYTHONPATH", "PYTHONHASHSEED", "LD_PRELOAD", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR"]
)
def test_variables_that_are_read_when_a_process_starts_make_another_kind(python: Path, name: str) -> None:
    assert kind(python, **{name: "/x"}) != kind(python)


def test_two_names_of_one_interpreter_are_one_kind(python: Path) -> None:
    assert kind_of(f"python:{python}", "/usr/bin/other", "", {"HOME": "/home/me"}, None) == kind(python)


def test_another_memory_limit_makes_another_kind(python: Path) -> None:
    assert kind_of("current", str(python), "", {"HOME": "/home/me"}, 2**30) not in (None, kind(python))


def test_a_package_that_was_installed_makes_another_kind_which_replaces_the_old_one(python: Path) -> None:
    before = kind(python)
    packages = python.parent.parent / "lib/python3.12/site-packages"
    (packages / "new.dist-info").mkdir()
    os.utime(packages, ns=(1, 1))
    after = kind(python)
    assert (after == before, after.replaces(before), kind(python, LANG="C").replaces(before)) == (False, True, False)


def test_an_environment_that_was_used_again_is_the_same_and_one_that_was_made_anew_is_not(python: Path) -> None:
    marker = python.parent.parent / "runtimed.json"
    marker.touch()
    before = kind(python, "uv:prewarmed", str(marker))
    os.utime(marker, ns=(1, 1))
    assert kind(python, "uv:prewarmed", str(marker)) == before
    (marker.parent / "another").touch()
    (marker.parent / "another").rename(marker)
    assert kind(python, "uv:prewarmed", str(marker)) != before


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("uv:inline", {}),
        ("kernelspec:python3", {}),
        ("deno", {}),
        ("current", {"PYTHONPATH": "/a:lib"}),
        ("python:/no/such/python", {}),
    ],
)
def test_some_starts_get_no_spare(python: Path, source: str, variables: dict[str, str]) -> None:
    assert kind_of(source, str(python), "", {"HOME": "/home/me", **variables}, None) is None
    if source == "uv:inline":
        assert kind_of("uv:prewarmed", str(python), "/no/such/marker", {}, None) is None


def test_the_values_of_variables_are_in_no_repr(python: Path) -> None:
    assert "hunter2" not in repr(kind(python, PYTHON_TOKEN="hunter2"))
