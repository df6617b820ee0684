"""The pages of settings and commands say what the code takes."""

import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import runtimed
from runtimed import actions
from runtimed.ipython.magics import RuntimedMagics
from runtimed.protocol.events import Event
from runtimed.protocol.messages import Ack, Message
from runtimed.settings import read_settings
from tests.docs import command_page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows(page: str, pattern: str) -> dict[str, str]:
    """The first and the last column of all rows whose first column has a pattern."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return dict(re.findall(rf"^\| `({pattern})` \| .* \| (.*) \|$", text, re.MULTILINE))


class Asked(Mapping[str, str]):
    """Variables of which none is set, and which were asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_each_variable_that_the_settings_read_has_a_row_and_no_other_has():
    asked = Asked()
    read_settings(asked)
    source = Path(runtimed.__file__).parent
    elsewhere = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(r"RUNTIMED_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))
    }
    assert asked.names <= elsewhere
    assert set(rows("settings.md", "RUNTIMED_[A-Z_]+")) == elsewhere


@pytest.mark.parametrize(
    ("name", "default"),
    [
        (name, default)
        for name, default in rows("settings.md", "RUNTIMED_[A-Z_]+").items()
        if re.fullmatch("`[^`]+`", default)
    ],
)
def test_a_default_in_the_table_is_the_default(name, default):
    asked = Asked()
    read_settings(asked)
    assert name in asked.names
    assert read_settings({name: default.strip("`")}) == read_settings({})


def test_every_module_that_a_page_names_is_there():
    source = Path(runtimed.__file__).parent
    root = DOCS.parent
    named = {
        (path.name, name)
        for path in [root / "README.md", *DOCS.glob("*.md")]
        for name in re.findall(r"`(?:src/runtimed/)?([\w/]+/\w+\.(?:py|cjs))`", path.read_text(encoding="utf-8"))
    }
    assert named
    assert {one for one in named if not (source / one[1]).exists() and not (root / one[1]).exists()} == set()


def test_the_floors_of_the_architecture_are_those_that_the_linter_keeps():
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    floors, of_the_daemon = re.findall(r"^\| (?:floor|package) \|.*\n((?:\|.*\n)+)", page, re.MULTILINE)[:2]

    def layers(container: str) -> set[str]:
        (found,) = [one for one in contracts["contracts"] if one.get("containers") == [container]]
        return {name for layer in found["layers"] for name in re.findall(r"\w+", layer)}

    assert layers("runtimed") == set(re.findall(r"`(\w+)`", floors))
    named = set(re.findall(r"`(?:daemon/)?(\w+)(?:\.py)?`", of_the_daemon))
    assert layers("runtimed.daemon") - {"__main__"} == named


def test_the_settings_of_the_magics_have_their_rows():
    assert {name: default.partition(",")[0].strip("`") for name, default in rows("settings.md", "[a-z_]+").items()} == {
        name: str(trait.default()) or "the notebook's name"
        for name, trait in RuntimedMagics.class_traits(config=True).items()
    }


def test_the_page_of_commands_is_the_parser():
    assert command_page.PAGE.read_text(encoding="utf-8") == command_page.page(), (
        "`python -m tests.docs.command_page` writes docs/cli.md anew"
    )


def test_every_action_has_its_row_with_its_fields():
    text = (DOCS / "browser.md").read_text(encoding="utf-8")
    shared = {*actions.Target.__struct_fields__, "timeout"}
    assert {
        name: re.findall(r"`(\w+)`", fields)
        for name, fields in re.findall(r"^\| `(\w+)` \| [\w ]* \| (.*?) \| .* \|$", text, re.MULTILINE)
    } == {
        str(kind.__struct_config__.tag): [field for field in kind.__struct_fields__ if field not in shared]
        for kind in typing.get_args(actions.Action)
    }


def test_the_page_of_the_protocol_names_every_event_and_every_message_with_its_fields():
    text = (DOCS / "protocol.md").read_text(encoding="utf-8")
    table = text[text.index("## Events") : text.index("## Daemon and host")]
    named = [
        name for names in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", names)
    ]
    assert sorted(set(named) - {"t"}) == sorted(kind.__struct_config__.tag for kind in typing.get_args(Event))
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:the asking|the serving|either).*? \| (.*) \|$", text, re.MULTILINE))
    messages = [typing.get_origin(kind) or kind for kind in typing.get_args(Message) if kind is not Ack]
    kinds = {kind.__struct_config__.tag: kind for kind in messages}
    assert set(rows) == set(kinds)
    for name, kind in kinds.items():
        assert set(kind.__struct_fields__) <= set(re.findall(r"`(\w+)`", rows[name])), name
