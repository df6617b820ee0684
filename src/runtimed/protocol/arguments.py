"""Checks the fields of an operation before it is sent, with errors about the arguments. Nothing here sends one.

A caller's arguments are the fields of an operation, so one check serves all calls.
"""

from __future__ import annotations

import functools
import math
import re
import reprlib
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from runtimed.errors import InvalidArgument
from runtimed.protocol.codec import MAX_FRAME
from runtimed.protocol.operation import Operation

__all__ = ["check_operation", "check_values"]

_ROOM: Final = 2**10
"""Bytes of a frame that are left to the message around an operation, the one to a host included."""

_EXPECTED: Final = re.compile(r"Expected (?P<what>.*?)(?:, got (?P<got>.*))?")
_PYTHON: Final = {"null": "None", "array": "list", "object": "dict"}


def check_operation(operation: Operation[Any]) -> None:
    """Check all fields of an operation.

    Raises:
        InvalidArgument: If a field has a wrong type, is out of bounds, is not valid Unicode, or cannot be encoded.
    """
    plain: dict[str, Any] = {}
    for name in operation.__struct_fields__:
        value = getattr(operation, name)
        try:
            plain[name] = msgspec.to_builtins(value, builtin_types=(bytes,))
        except (TypeError, RecursionError) as exc:
            raise InvalidArgument(
                f"{name} cannot be sent ({exc}): give texts, numbers, bytes, None, and lists and dicts of them",
                argument=name,
            ) from exc
    try:
        msgspec.convert(plain, type(operation), builtin_types=(bytes,))
    except msgspec.ValidationError as exc:
        raise _refused(operation, str(exc)) from exc
    except UnicodeEncodeError:
        _walk(operation, "", every_text=True)  # msgspec encodes a text even where its type is wrong
    check_values(operation)


def check_values(operation: Operation[Any]) -> None:
    """Check the texts and numbers of an operation whose fields have the right types, and its size.

    Raises:
        InvalidArgument: If a text outside `raw_texts` contains a lone surrogate, a number is not finite or has more
            than 64 bits, or the operation does not fit into a frame.
    """
    try:
        size = len(msgspec.msgpack.encode(operation))
    except (UnicodeEncodeError, OverflowError):
        _walk(operation, "")
        return
    if size > MAX_FRAME - _ROOM:
        raise InvalidArgument(
            f"The arguments of this call have {size} bytes together, and at most {MAX_FRAME - _ROOM} fit into a "
            "message: give large data in pieces, or as a file"
        )
    if operation.is_free_form:  # no type excludes a number that is not finite
        _walk(operation, "")


def _walk(value: object, path: str, *, every_text: bool = False) -> None:
    match value:
        case str() if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as exc:
                raise InvalidArgument(
                    f"{path} must be valid Unicode; there is a lone surrogate at {exc.start}: remove it, or replace it "
                    'with text.encode(errors="replace").decode()',
                    argument=path,
                ) from exc
        case msgspec.Struct():
            for name in value.__struct_fields__:
                if every_text or name not in _raw_texts(type(value)):
                    _walk(getattr(value, name), name, every_text=every_text)
        case Mapping():
            for key, each in value.items():
                _walk(key, f"a key of {path}")
                _walk(each, f"{path}.{key}")
        case list() | tuple():
            for at, each in enumerate(value):
                _walk(each, f"{path}[{at}]")
        case float() if not math.isfinite(value):
            raise InvalidArgument(f"{path} is {value}: give a finite number", argument=path)
        case int() if not -(2**63) <= value < 2**64:
            raise InvalidArgument(f"{path} is {reprlib.repr(value)}: give an int of at most 64 bits", argument=path)
        case _:
            pass


@functools.cache
def _raw_texts(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset[str]().union(*(vars(base).get("raw_texts", ()) for base in kind.__mro__))


def _refused(operation: Operation[Any], reason: str) -> InvalidArgument:
    """Rewrite an error message of msgspec with the argument's name and Python's types."""
    problem, _, place = reason.rpartition(" - at ")
    in_key, _, path = place.strip("`").rpartition("$.")
    in_value = path.endswith("[...]")
    parent, _, name = path.replace("[...]", "").rpartition(".")
    expected = _EXPECTED.fullmatch(problem)
    if expected is not None and expected["got"] is not None:
        given = _python(expected["got"])
        given, wanted = given if given == "None" else f"of the type {given}", _python(expected["what"])
    else:
        owner = attrgetter(parent)(operation) if parent else operation
        value = getattr(owner, name)
        given = f"of the length {len(value)}" if isinstance(value, list | tuple | dict) else reprlib.repr(value)
        choices = _choices(owner, name)
        if expected is None and not any(choices):
            return InvalidArgument(f"{name} is invalid: {problem}", argument=name)
        wanted = " or ".join(map(repr, choices)) if expected is None else _python(expected["what"])
    part = "a key of " if in_key else "a value of " if in_value else ""
    return InvalidArgument(f"{part}{name} is {given}: give {wanted}", argument=name)


def _python(words: str) -> str:
    return re.sub(r"\w+", lambda word: _PYTHON.get(word[0], word[0]), words.replace("`", "")).replace(" | ", " or ")


def _choices(owner: msgspec.Struct, name: str) -> list[Any]:
    """Return the allowed values of a field that is a Literal, or an optional one."""
    hint = next(field.type for field in msgspec.structs.fields(owner) if field.name == name)
    parts = [hint] if get_origin(hint) is Literal else get_args(hint)
    return [choice for part in parts for choice in (get_args(part) or [None])]
