"""The schema of the protocol in the docs is that of the code, and describes what is sent."""

import json
from pathlib import Path
from typing import get_args

from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.host_operations import HostOperation
from runtimed.protocol.schema import schema

PAGE = Path(__file__).parents[2] / "docs" / "protocol.schema.json"


def test_the_schema_in_the_docs_is_that_of_the_code():
    assert json.loads(PAGE.read_text()) == schema(), "python -m runtimed.protocol > docs/protocol.schema.json"


def test_the_schema_has_every_operation_with_its_reply():
    found = schema()

    for union, name in ((ClientOperation, "of a daemon"), (HostOperation, "of a host")):
        tags = {kind.__struct_config__.tag for kind in get_args(union)}
        assert set(found["operations"][name]) == tags
    assert found["operations"]["of a daemon"]["join"] == {
        "operation": {"$ref": "#/$defs/Join"},
        "reply": {"$ref": "#/$defs/JoinReply"},
    }
    assert found["$defs"]["JoinReply"]["properties"] == {"last": {"type": "integer"}}


def test_every_reference_of_the_schema_leads_somewhere():
    found = schema()
    references = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            references.update([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(found)
    assert references == {f"#/$defs/{name}" for name in found["$defs"]}
