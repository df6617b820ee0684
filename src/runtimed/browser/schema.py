"""Interprets the schemas for scraping: JSON Schema with a few keys of ours. Nothing here touches a browser.

A part of a schema says where its value is with `selector` (CSS or any that Playwright knows), or `role` with `name`, or
a part of it in any case (`exact` for the whole), inside the element around it; `attribute` reads that in place of the
text. `pick` says which of several numbers is meant (`first`, `last`, `price`), `locale` by which language's conventions
they are written.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from typing import Any, Final, get_args

from runtimed.browser.numerals import Pick, is_language
from runtimed.browser.survey import by_role
from runtimed.errors import BrowserError

__all__ = [
    "MAX_DEPTH",
    "Part",
    "alternatives",
    "check_schema",
    "check_value",
    "find_selectors",
    "is_optional",
    "resolve",
]

MAX_DEPTH: Final = 20
"""Deepest nesting of a schema, and longest chain of references."""

Part = Mapping[str, Any]

_TYPES: Final = ("string", "number", "integer", "boolean", "array", "object", "null")
_OURS: Final = ("selector", "role", "name", "exact", "attribute", "pick", "locale")
_STRUCTURE: Final = ("type", "properties", "required", "items", "default", "$ref", "anyOf", "oneOf", "allOf")
_NOTES: Final = (
    *("$schema", "$id", "$defs", "$comment", "definitions", "title", "description", "examples", "deprecated"),
    *("readOnly", "writeOnly", "discriminator", "contentEncoding", "contentMediaType"),
)
_UNIONS: Final = ("anyOf", "oneOf")


def _reads(read: Callable[[str], object], form: str) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        with contextlib.suppress(ValueError):
            return re.fullmatch(form, value) is not None and read(value) is not None
        return False

    return holds


_TIME: Final = r"\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_FORMATS: Final[dict[str, Callable[[Any], bool]]] = {
    "date": _reads(date.fromisoformat, r"\d{4}-\d\d-\d\d"),
    "date-time": _reads(datetime.fromisoformat, rf"\d{{4}}-\d\d-\d\d[Tt ]{_TIME}"),
    "time": _reads(time.fromisoformat, _TIME),
    "duration": _reads(len, r"P(?=.)(?:\d+W|(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=.)(?:\d+H)?(?:\d+M)?(?:[\d.]+S)?)?)"),
    "email": _reads(len, rf"[^@\s]+@{_LABEL}(?:\.{_LABEL})*"),
    "hostname": _reads(len, rf"{_LABEL}(?:\.{_LABEL})*"),
    "ipv4": _reads(ipaddress.IPv4Address, ".*"),
    "ipv6": _reads(ipaddress.IPv6Address, ".*"),
    "uri": _reads(len, r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+"),
    "uri-reference": _reads(len, r"[^\s<>\"{}|\\^`]*"),
    "uuid": _reads(len, r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"),
    "int32": lambda value: -(2**31) <= value < 2**31,
    "int64": lambda value: -(2**63) <= value < 2**63,
    "float": lambda _: True,
    "double": lambda _: True,
}
"""Format → whether a value has it. Source: JSON Schema 2020-12, validation, 7.3; the numbers: OpenAPI 3."""
_OF_NUMBERS: Final = ("int32", "int64", "float", "double")

_LIMITS: Final[dict[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "minimum": (lambda value, limit: value >= limit, "below"),
    "maximum": (lambda value, limit: value <= limit, "above"),
    "exclusiveMinimum": (lambda value, limit: value > limit, "not above"),
    "exclusiveMaximum": (lambda value, limit: value < limit, "not below"),
    "multipleOf": (lambda value, limit: abs(value / limit - round(value / limit)) < 1e-9, "no multiple of"),
    "minLength": (lambda value, limit: len(value) >= limit, "shorter than"),
    "maxLength": (lambda value, limit: len(value) <= limit, "longer than"),
    "minItems": (lambda value, limit: len(value) >= limit, "fewer than"),
    "maxItems": (lambda value, limit: len(value) <= limit, "more than"),
    "uniqueItems": (lambda value, limit: not limit or all(value.count(one) == 1 for one in value), "not unique:"),
    "pattern": (lambda value, limit: re.search(limit, value) is not None, "unlike the pattern"),
    "format": (lambda value, name: _FORMATS[name](value), "no"),
    "enum": (lambda value, limit: value in limit, "none of"),
    "const": (lambda value, limit: value == limit, "not"),
}
_KIND_OF_LIMIT: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), (int, float)),
    **dict.fromkeys(("minLength", "maxLength", "pattern"), (str,)),
    **dict.fromkeys(("minItems", "maxItems", "uniqueItems"), (list,)),
}
_UNSUPPORTED: Final = (
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "prefixItems", "patternProperties"),
    *("propertyNames", "dependentRequired", "dependentSchemas", "minProperties", "maxProperties"),
    *("unevaluatedItems", "unevaluatedProperties", "$anchor", "$dynamicRef", "$dynamicAnchor"),
)
"""Further keys of JSON Schema."""
_KNOWN: Final = (*_OURS, *_STRUCTURE, *_LIMITS, *_NOTES, "additionalProperties")


def check_schema(schema: Any) -> None:
    """Check a whole schema before anything is read by it.

    Raises:
        BrowserError: If something in it is not supported: an unknown key or type, a field without a place on the page
            (attribute `path`).
    """
    _check(schema, schema, "$", placed=False, within=frozenset())


def _check(part: Any, schema: Part, path: str, *, placed: bool, within: frozenset[str]) -> None:
    if not isinstance(part, Mapping):
        raise _wrong(path, "is no schema")
    if "$ref" in part:
        if part["$ref"] in within:
            return  # refers to itself
        within |= {str(part["$ref"])}
    for option in alternatives(resolve(part, schema, path), schema, path):
        _check_words(option, path)
        here = placed or bool(find_selectors(option))
        kind = option.get("type")
        if kind == "array":
            if not find_selectors(option):
                raise _wrong(path, "is an array and needs a selector, or a role with name")
            _check(option.get("items", {}), schema, f"{path}[0]", placed=True, within=within)
        elif kind == "object" or "properties" in option:
            _check_object(option, schema, path, within=within)
        elif not here and "attribute" not in option and "const" not in option and kind != "null":
            raise _wrong(
                path,
                "has no place on the page: give it a selector, a role with name, or an attribute; "
                "selector ':scope' is the element around it",
            )


def _check_object(part: Part, schema: Part, path: str, *, within: frozenset[str]) -> None:
    properties = part.get("properties")
    if not isinstance(properties, Mapping):
        raise _wrong(path, "is an object and needs properties")
    if isinstance(part.get("additionalProperties"), Mapping):
        raise _wrong(path, "has additionalProperties with a schema, which cannot be honoured: name all properties")
    for name in part.get("required", ()):
        if name not in properties:
            raise _wrong(path, f"requires {name!r}, which is none of its properties{_nearest(name, properties)}")
    for name, each in properties.items():
        _check(each, schema, f"{path}.{name}", placed=False, within=within)


def _check_words(part: Part, path: str) -> None:
    for key in part:
        if key not in _KNOWN and not key.startswith("x-"):
            hint = "" if key in _UNSUPPORTED else _nearest(key, _KNOWN)
            raise _wrong(path, f"has the key {key!r}, which cannot be honoured{hint}")
    kind = part.get("type", "string")
    for one in kind if isinstance(kind, list) else [kind]:
        if one not in _TYPES:
            hint = "; did you mean 'number' with pick: 'price'?" if one == "price" else _nearest(one, _TYPES)
            raise _wrong(path, f"has the type {one!r}, which is none{hint}")
    if part.get("pick") not in (None, *get_args(Pick)):
        raise _wrong(path, f"has pick: {part['pick']!r}, but it is one of {', '.join(map(repr, get_args(Pick)))}")
    if "locale" in part and not (isinstance(part["locale"], str) and is_language(part["locale"])):
        raise _wrong(path, f"has locale: {part['locale']!r}, but it is a language such as 'de' or 'pt-BR'")
    for key in ("selector", "role", "name", "attribute"):
        if key in part and not (isinstance(part[key], str) and part[key].strip()):
            raise _wrong(path, f"has {key}: {part[key]!r}, but it is a text")
    if "name" in part and "role" not in part:
        raise _wrong(path, "has a name without a role")
    if not isinstance(part.get("exact", False), bool):
        raise _wrong(path, f"has exact: {part['exact']!r}, but it is true or false")
    if "exact" in part and "name" not in part:
        raise _wrong(path, "has exact without a name")
    if "selector" in part and "role" in part:
        raise _wrong(path, "has a selector and a role; give one of them")
    if "format" in part:
        kinds = kind if isinstance(kind, list) else [kind]
        allowed = [name for name in _FORMATS if ("string" not in kinds) == (name in _OF_NUMBERS)]
        if part["format"] not in allowed:
            raise _wrong(
                path, f"has format: {part['format']!r}, which cannot be honoured; it is one of {', '.join(allowed)}"
            )
    if "pattern" in part:
        try:
            re.compile(part["pattern"])
        except (re.error, TypeError) as exc:
            raise _wrong(path, f"has a pattern that cannot be read: {exc}") from exc


def resolve(part: Part, schema: Part, path: str) -> Part:
    """Return a part of a schema merged with what it refers to.

    Raises:
        BrowserError: If it refers to what the schema lacks.
    """
    for _ in range(MAX_DEPTH):
        if "$ref" in part:
            name = str(part["$ref"]).rpartition("/")[2]
            definitions = schema.get("$defs") or schema.get("definitions") or {}
            if name not in definitions:
                raise _wrong(path, f"refers to {part['$ref']!r}, which the schema lacks")
            part = {**definitions[name], **_without(part, ("$ref",))}
        elif "allOf" in part:
            merged: dict[str, Any] = {}
            for each in part["allOf"]:
                merged |= each
            part = {**merged, **_without(part, ("allOf",))}
        else:
            return part
    raise _wrong(path, "refers to itself")


def alternatives(part: Part, schema: Part, path: str) -> list[Part]:
    """Return the alternatives of a part, in the order in which they are tried; null is none of them."""
    options = next((part[key] for key in _UNIONS if key in part), None)
    if options is not None:
        found = []
        for option in options:
            whole = resolve(option, schema, path)
            if any(key in whole for key in _UNIONS):
                found += alternatives({**whole, **_without(part, _UNIONS)}, schema, path)
            elif whole.get("type") != "null":
                found.append({**whole, **_without(part, _UNIONS)})
        return found
    kinds = part.get("type")
    if isinstance(kinds, list):
        return [{**part, "type": kind} for kind in kinds if kind != "null"]
    return [part]


def is_optional(part: Part, schema: Part, path: str) -> bool:
    """Whether a part may be null."""
    kinds = part.get("type")
    if kinds == "null" or (isinstance(kinds, list) and "null" in kinds):
        return True
    options = next((part[key] for key in _UNIONS if key in part), ())
    return any(is_optional(resolve(option, schema, path), schema, path) for option in options)


def find_selectors(part: Part) -> list[str]:
    """Return Playwright's selectors of a part, the innermost first; empty if it is the element around it."""
    if "selector" in part:
        return [str(part["selector"])]
    if "role" in part:
        role, name = str(part["role"]).strip().lower(), part.get("name")
        exact = by_role(role, name)
        return [exact] if name is None or part.get("exact", False) else [exact, by_role(role, name, part=True)]
    return []


def check_value(value: Any, part: Part, path: str) -> None:
    """Check a value against the limits that its part of the schema declares.

    Raises:
        BrowserError: If it exceeds one.
    """
    for key, (holds, words) in _LIMITS.items():
        kinds = _KIND_OF_LIMIT.get(key)
        if key in part and (kinds is None or isinstance(value, kinds)) and not holds(value, part[key]):
            shown = f"has {len(value)} items" if isinstance(value, list) else f"is {value!r}"
            raise _wrong(path, f"{shown}, {words} {part[key]!r} ({key})")


def _without(part: Part, keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in keys}


def _nearest(name: object, valid: Iterable[str]) -> str:
    matches = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _wrong(path: str, says: str) -> BrowserError:
    return BrowserError(f"scrape: {path} {says}", path=path)
