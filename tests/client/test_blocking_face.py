"""The blocking face of the client is the asynchronous one without coroutines: what stands there is what is made."""

import ast

import pytest

from tests.blocking_face import CLIENT, MADE, blocking


@pytest.mark.parametrize("name", MADE)
def test_what_stands_in_the_repository_is_what_is_made(name):
    assert (CLIENT / MADE[name]).read_text("utf-8") == blocking(name), "run `python -m tests.blocking_face`"


@pytest.mark.parametrize("name", MADE)
def test_nothing_of_asyncio_is_left(name):
    tree = ast.parse(blocking(name))
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef)
    assert not [node for node in ast.walk(tree) if isinstance(node, waits)]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not [one for one in names if "async" in one.lower()]


def test_every_asynchronous_module_is_one_of_which_a_blocking_one_is_made_or_one_of_the_hands():
    by_hand = {"async_apart.py", "async_handle.py", "async_browser_handle.py", "async_work.py"}
    assert {path.name for path in CLIENT.glob("async_*.py")} == {*MADE, *by_hand}
