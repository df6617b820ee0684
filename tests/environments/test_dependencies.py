"""The dependencies that a notebook names: what is written, what stays, what is refused."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from runtimed import EnvironmentFailed, SessionError
from runtimed.environments.additions import obstacle
from runtimed.environments.dependencies import add, named, package_name, remove
from runtimed.environments.recipes import CondaRecipe, UvRecipe
from runtimed.environments.store import MARKER


def uv(*dependencies: str) -> str:
    return json.dumps({"runt": {"uv": {"dependencies": list(dependencies)}}})


def test_a_notebook_without_metadata_names_nothing_and_takes_everything():
    assert (named(None, "uv"), named("{}", "conda")) == ([], [])
    assert add(None, "uv", ["pandas", " numpy>=2 "]) == uv("pandas", "numpy>=2")
    assert json.loads(add(None, "conda", ["pandas"])) == {"runt": {"conda": {"dependencies": ["pandas"]}}}


def test_what_else_the_metadata_hold_stays_as_it_is():
    before: dict[str, Any] = {
        "kernelspec": {"name": "python3"},
        "runt": {
            "schema": 1,
            "uv": {"requires-python": ">=3.11", "dependencies": ["a"]},
            "conda": {"channels": ["conda-forge"]},
        },
    }
    after = json.loads(add(json.dumps(before), "uv", ["b"]))
    assert after.pop("runt") == {**before["runt"], "uv": {"requires-python": ">=3.11", "dependencies": ["a", "b"]}}
    assert after == {"kernelspec": {"name": "python3"}}


def test_a_package_has_one_dependency_however_its_name_is_written():
    assert add(uv("a", "Scikit_Learn<1", "z"), "uv", ["scikit.learn[x]>=1.5"]) == uv("a", "scikit.learn[x]>=1.5", "z")
    assert add(uv("a; os_name=='nt'", "b", "A>1"), "uv", ["a==2"]) == uv("a==2", "b")
    assert remove(uv("a", "Scikit_Learn<1"), "uv", "scikit-learn") == uv("a")
    assert remove(uv("a"), "uv", "b") is None
    assert remove(uv("a @ https://example.org/a-1.whl"), "uv", "A") == uv()


def test_what_somebody_wrote_by_hand_and_is_none_is_left_alone():
    assert add(uv("./local.whl"), "uv", ["b"]) == uv("./local.whl", "b")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("numpy", "numpy"),
        ("numpy>=2", "numpy"),
        ("numpy=2.1", "numpy"),
        ("numpy 2.*", "numpy"),
        ("conda-forge::NumPy[build=x]", "numpy"),
        ("_libgcc_mutex", "_libgcc_mutex"),
    ],
)
def test_a_match_spec_has_a_name(spec, name):
    assert package_name(spec, "conda") == name


@pytest.mark.parametrize("spec", ["", "a b", "==1", "-r file", "a; rm"])
def test_what_is_no_dependency_is_refused_with_a_sentence(spec):
    with pytest.raises(EnvironmentFailed, match="is no dependency such as 'pandas'") as raised:
        add(uv("kept"), "uv", ["good", spec])
    assert raised.value.package == spec
    with pytest.raises(EnvironmentFailed, match="is no match spec of conda"):
        add(None, "conda", [spec])


@pytest.mark.parametrize(
    "metadata", ["[", "[]", '{"runt": 1}', '{"runt": {"uv": []}}', '{"runt": {"uv": {"dependencies": "a"}}}']
)
def test_metadata_that_cannot_be_understood_are_refused_and_not_overwritten(metadata):
    for edit in (named, lambda text, manager: add(text, manager, ["a"]), lambda text, m: remove(text, m, "a")):
        with pytest.raises(SessionError, match="'?notebook_metadata"):
            edit(metadata, "uv")


UV = UvRecipe(dependencies=("alpha", "./local.whl"), python="/usr/bin/python3")


@pytest.mark.parametrize(
    ("running", "wanted", "reason"),
    [
        (UV, replace(UV, dependencies=("Alpha>1", "beta", "./local.whl")), None),
        (UV, replace(UV, dependencies=("beta",)), "./local.whl, alpha would have to be removed"),
        (UV, replace(UV, requires_python=">=3.12"), "another Python is asked for"),
        (UV, replace(UV, project="/shop"), "a project's environment is not changed under a running kernel"),
        (replace(UV, project="/shop"), UV, "a project's environment is not changed under a running kernel"),
        (UV, CondaRecipe(dependencies=("a",)), "packages of conda are not added to a running kernel"),
        (CondaRecipe(dependencies=("a",)), UV, "packages of conda are not added to a running kernel"),
    ],
)
def test_only_a_uv_environment_of_the_same_python_can_have_additions(tmp_path, running, wanted, reason):
    marker = tmp_path / MARKER
    marker.write_text(json.dumps({"kind": type(running).__name__, **asdict(running)}))
    assert obstacle(marker, wanted) == reason
    marker.unlink()
    assert obstacle(marker, wanted) == "the environment of the kernel is gone"
