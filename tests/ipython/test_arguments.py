"""What may follow a magic's name; bad input gets one sentence."""

import pytest
from IPython.core.error import UsageError

from runtimed.ipython.arguments import COMMANDS, Command, RunOptions, parse_cell, parse_command, parse_run


def test_every_option_is_read() -> None:
    line = '--timeout 2.5 --out result "my id" --silent --cell c1 --kernel-type deno --env python:/usr/bin/python3'
    assert parse_run(line) == RunOptions(
        notebook_id="my id",
        cell_id="c1",
        timeout=2.5,
        out="result",
        silent=True,
        kernel_type="deno",
        env="python:/usr/bin/python3",
    )
    assert parse_run("--no-wait") == RunOptions(wait=False)
    assert parse_run("") == RunOptions()


def test_dollars_and_braces_stay_as_they_are() -> None:
    assert parse_run("'$HOME {x}'") == RunOptions(notebook_id="$HOME {x}")


def test_a_cell_id_comes_before_the_notebook_id() -> None:
    assert parse_cell("c1 nb --no-wait", "%runtimed_cell") == RunOptions(cell_id="c1", notebook_id="nb", wait=False)


def test_every_command_is_read() -> None:
    read = [
        parse_command(line)
        for line in (
            "connect nb --env auto --kernel-type deno",
            "on nb",
            "off",
            "sessions",
            "cells",
            "replay c1 nb",
            "pull a b",
            "push a --as b",
            "interrupt nb",
            "restart",
            "stop  'a b'",
            "browser  click button 'a b'",
            "env",
        )
    ]
    assert read == [
        Command(name="connect", notebook_id="nb", env="auto", kernel_type="deno"),
        Command(name="on", notebook_id="nb"),
        Command(name="off"),
        Command(name="sessions"),
        Command(name="cells"),
        Command(name="replay", cell_id="c1", notebook_id="nb"),
        Command(name="pull", variables=("a", "b")),
        Command(name="push", variables=("a",), new_name="b"),
        Command(name="interrupt", notebook_id="nb"),
        Command(name="restart"),
        Command(name="stop", notebook_id="a b"),
        Command(name="browser", rest=" click button 'a b'"),
        Command(name="env"),
    ]
    assert [command.name for command in read if command] == list(COMMANDS)
    assert parse_command("  ") is None
    assert parse_command("env trust") == Command(name="env trust")
    assert parse_command("env trust nb") == Command(name="env trust", notebook_id="nb")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        *(
            (
                f"--timeout {text}",
                "%%runtimed: argument --timeout: must be a number of seconds, not negative, or `none` for no limit; "
                f"not '{text}'",
            )
            for text in ("soon", "-1", "nan")
        ),
        ("--timeout", "%%runtimed: argument --timeout: expected one argument"),
        ("--out 1x", "%%runtimed: argument --out: must be the name of a variable, not '1x'"),
        ("--out class", "%%runtimed: argument --out: must be the name of a variable, not 'class'"),
        ("--time 3", "%%runtimed: unrecognized arguments: --time. Did you mean --timeout?"),
        ("--slient=1", "%%runtimed: unrecognized arguments: --slient=1. Did you mean --silent?"),
        ("--fast", "%%runtimed: unrecognized arguments: --fast"),
        ("a b", "%%runtimed: unrecognized arguments: b"),
        ("''", "%%runtimed: argument NOTEBOOK_ID: must not be empty"),
        ("'a", "%%runtimed: no closing quotation"),
        (
            "--no-wait --out x",
            "%%runtimed: --out needs the end of the execution, which --no-wait does not wait for",
        ),
        (
            "--no-wait --timeout 3",
            "%%runtimed: --timeout needs the end of the execution, which --no-wait does not wait for",
        ),
    ],
)
def test_bad_options_get_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_run(line)
    assert str(caught.value) == f"{sentence} (`%%runtimed?` explains)"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("connect", "%runtimed connect: the following arguments are required: ID (`%runtimed?` explains)"),
        ("pull a b --as c", "%runtimed pull: --as goes with one NAME (`%runtimed?` explains)"),
        (
            "push a.b",
            "%runtimed push: argument NAME: must be the name of a variable, not 'a.b' (`%runtimed?` explains)",
        ),
        ("celsl", "%runtimed: there is no 'celsl'. Did you mean cells?"),
        ("sesions x", "%runtimed: there is no 'sesions'. Did you mean sessions?"),
        (
            "connect a --evn x",
            "%runtimed connect: unrecognized arguments: --evn x. Did you mean --env? (`%runtimed?` explains)",
        ),
        ("sessions x", "%runtimed sessions: unrecognized arguments: x (`%runtimed?` explains)"),
        (
            "print(1)",
            "%runtimed: there is no 'print(1)', only connect, on, off, sessions, cells, replay, pull, push, interrupt, "
            "restart, stop, browser, env; code goes into a cell that begins with %%runtimed",
        ),
    ],
)
def test_bad_commands_get_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_command(line)
    assert str(caught.value) == sentence


def test_a_cell_needs_an_id() -> None:
    with pytest.raises(UsageError, match="%%runtimed_cell: the following arguments are required: CELL_ID"):
        parse_cell("", "%%runtimed_cell")
