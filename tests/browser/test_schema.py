"""Schemas that cannot be honoured are refused as a whole, before anything is read."""

from typing import Any

import pytest

from runtimed import BrowserError
from runtimed.browser.schema import check_schema, check_value


def fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (
            fields(title={"type": "string"}),
            "$.title has no place on the page: give it a selector, a role with name, or an attribute; "
            "selector ':scope' is the element around it",
        ),
        (
            fields(title={"type": "string", "selektor": "h1"}),
            "$.title has the key 'selektor', which cannot be honoured; did you mean 'selector'?",
        ),
        (
            {"type": "array", "selector": "li", "items": fields(url={"selector": "a", "atribute": "href"})},
            "$[0].url has the key 'atribute', which cannot be honoured; did you mean 'attribute'?",
        ),
        ({"type": "array", "items": {}}, "$ is an array and needs a selector, or a role with name"),
        (
            fields(n={"type": "interger", "selector": "b"}),
            "$.n has the type 'interger', which is none; did you mean 'integer'?",
        ),
        (
            fields(n={"type": "price", "selector": "b"}),
            "$.n has the type 'price', which is none; did you mean 'number' with pick: 'price'?",
        ),
        (
            fields(n={"type": "number", "selector": "b", "pick": "second"}),
            "$.n has pick: 'second', but it is one of 'first', 'last', 'price'",
        ),
        (
            fields(n={"type": "number", "selector": "b", "locale": "german"}),
            "$.n has locale: 'german', but it is a language such as 'de' or 'pt-BR'",
        ),
        (fields(n={"selector": "b", "role": "button"}), "$.n has a selector and a role; give one of them"),
        (fields(n={"name": "Save"}), "$.n has a name without a role"),
        (fields(n={"role": "button", "exact": True}), "$.n has exact without a name"),
        (fields(n={"role": "button", "name": "a", "exact": "x"}), "$.n has exact: 'x', but it is true or false"),
        (fields(n={"selector": ""}), "$.n has selector: '', but it is a text"),
        (
            {**fields(title={"selector": "h1"}), "required": ["titel"]},
            "$ requires 'titel', which is none of its properties; did you mean 'title'?",
        ),
        ({"type": "object"}, "$ is an object and needs properties"),
        (
            {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
            "$ has additionalProperties with a schema, which cannot be honoured: name all properties",
        ),
        ({"not": {}, "selector": "b"}, "$ has the key 'not', which cannot be honoured"),
        (
            fields(day={"type": "string", "format": "day", "selector": "b"}),
            "$.day has format: 'day', which cannot be honoured; it is one of date, date-time, time, duration, email, "
            "hostname, ipv4, ipv6, uri, uri-reference, uuid",
        ),
        (
            fields(n={"type": "integer", "format": "date", "selector": "b"}),
            "$.n has format: 'date', which cannot be honoured; it is one of int32, int64, float, double",
        ),
        ({"$ref": "#/$defs/Nothing"}, "$ refers to '#/$defs/Nothing', which the schema lacks"),
        (fields(a="b"), "$.a is no schema"),
        (
            fields(a={"anyOf": [{"type": "string", "selecter": "b"}, {"type": "null"}]}),
            "$.a has the key 'selecter', which cannot be honoured; did you mean 'selector'?",
        ),
    ],
)
def test_what_cannot_be_honoured_is_said_with_its_place(schema, says):
    with pytest.raises(BrowserError) as caught:
        check_schema(schema)

    assert caught.value.message == f"scrape: {says}"


@pytest.mark.parametrize(
    "schema",
    [
        fields(href={"type": "string", "attribute": "href"}, kind={"const": "tea"}),
        {"type": "array", "selector": "li", "items": {"type": "string"}},
        {
            "$ref": "#/$defs/Node",
            "$defs": {"Node": fields(nodes={"type": "array", "selector": "ul", "items": {"$ref": "#/$defs/Node"}})},
        },
        fields(a={"type": ["string", "null"], "selector": "b", "x-note": 1, "title": "A", "minLength": 1}),
    ],
)
def test_what_can_be_honoured_passes(schema):
    check_schema(schema)


@pytest.mark.parametrize(
    ("form", "those", "others"),
    [
        ("date", ["2026-11-29"], ["2026-11-31", "29.11.2026", "20261129", "Rated 4.5 stars", ""]),
        ("date-time", ["2026-11-29T12:30:00Z", "2026-11-29T12:30:00.5+01:00"], ["2026-11-29", "2026-11-29T25:00:00Z"]),
        ("time", ["12:30:00Z"], ["12:30", "24:61:00Z"]),
        ("duration", ["P3DT4H", "PT1.5S", "P2W"], ["P", "3 days", "PT"]),
        ("email", ["ann@shop.example"], ["ann at shop", "@shop", "a b@c"]),
        ("hostname", ["shop.example"], ["shop example", "-a", ""]),
        ("ipv4", ["127.0.0.1"], ["1.2.3", "::1"]),
        ("ipv6", ["::1"], ["127.0.0.1"]),
        ("uri", ["https://shop.example/a?b#c", "mailto:a@b"], ["/a", "two words", ""]),
        ("uri-reference", ["/a", ""], ["two words"]),
        ("uuid", ["00000000-0000-4000-8000-00000000000f"], ["0f"]),
        ("int32", [2147483647, -2147483648], [2147483648]),
        ("double", [1.5, 2**70], []),
    ],
)
def test_a_format_is_honoured(form, those, others):
    part = {"type": "string", "format": form}
    for value in those:
        check_value(value, part, "$.v")
    for value in others:
        with pytest.raises(BrowserError) as caught:
            check_value(value, part, "$.v")
        assert caught.value.message == f"scrape: $.v is {value!r}, no {form!r} (format)"
