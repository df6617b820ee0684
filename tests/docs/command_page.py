"""`python -m tests.docs.command_page` writes docs/cli.md from the parser of the command line."""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from runtimed.cli.parser import make_parser

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"

INTRODUCTION = """\
# Command line

`runtimed` and `jupyter runtimed` are the same program. This page is generated from its parser by
`python -m tests.docs.command_page`; `--help` after a command says the same.

Tables are for people, `--json` is for programs. `eval "$(runtimed completion bash)"` (or `zsh`) completes commands,
options, session ids and cell ids with Tab. `stop`, `delete` and `prune` ask only where something would be lost; `--yes`
answers the question.
"""


def page() -> str:
    """Return the page. It depends on the parser alone: argparse's own help differs between versions of Python."""
    with patch.object(sys, "argv", ["runtimed"]):
        parser = make_parser()
    commands = dict(_commands(parser))
    table = "\n".join(f"| [`{name}`](#{_anchor(name)}) | {text} |" for name, (text, _) in commands.items())
    sections = "\n".join(_section(name, text, command) for name, (text, command) in commands.items())
    return (
        f"{INTRODUCTION}\n```text\n{(parser.epilog or '').strip()}\n```\n\n"
        f"| command | what it does |\n| --- | --- |\n{table}\n\n{sections}"
    )


def _commands(
    parser: argparse.ArgumentParser, prefix: str = ""
) -> Iterator[tuple[str, tuple[str, argparse.ArgumentParser]]]:
    """All commands in order, each with its one line and its parser; those that only hold others are left out."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                below = list(_commands(command, f"{prefix}{name} "))
                yield from below or [(f"{prefix}{name}", (texts[name], command))]


def _section(name: str, text: str, command: argparse.ArgumentParser) -> str:
    description = " ".join((command.description or f"{text[0].upper()}{text[1:]}.").split())
    arguments = [action for action in command._actions if action.dest != "help"]
    usage = " ".join(["runtimed", name, *map(_in_usage, _options_first(arguments))])
    rows = "\n".join(f"| `{_written(action)}` | {_explained(action)} |" for action in arguments)
    table = f"\n| argument | meaning |\n| --- | --- |\n{rows}\n" if rows else ""
    return f"## {name}\n\n{description}\n\n```text\n{usage}\n```\n{table}"


def _options_first(arguments: list[argparse.Action]) -> list[argparse.Action]:
    return sorted(arguments, key=lambda action: not action.option_strings)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    return str(action.metavar or f"{{{','.join(map(str, action.choices or [action.dest]))}}}")


def _written(action: argparse.Action) -> str:
    value = _value(action)
    if not action.option_strings:
        return f"{value} [ARG…]" if action.nargs == argparse.PARSER else value
    return f"{', '.join(action.option_strings)} {value}".strip()


def _in_usage(action: argparse.Action) -> str:
    if action.option_strings:
        return f"[{f'{action.option_strings[0]} {_value(action)}'.strip()}]"
    return {"?": f"[{_value(action)}]", "*": f"[{_value(action)} …]", argparse.PARSER: _written(action)}.get(
        str(action.nargs), _value(action)
    )


def _explained(action: argparse.Action) -> str:
    return re.sub(r"\s+", " ", (action.help or "") % {"default": action.default}).replace("|", r"\|")


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
