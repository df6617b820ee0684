"""Schemas that cannot be honoured are refused as a whole, before anything is read."""

from typing import Any

import pytest

from runtimed import BrowserError
from runtimed.browser.schema import check_schema


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
