"""Generates the JSON schema of the protocol from its definitions: messages, operations with their replies, events."""

from __future__ import annotations

import json
from typing import Any, Final, get_args

import msgspec

from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.events import Event
from runtimed.protocol.host_operations import HostOperation
from runtimed.protocol.messages import (
    PROTOCOL_VERSION,
    Ack,
    Cancel,
    EventFrame,
    Failure,
    Hello,
    Refusal,
    Reply,
    Request,
    Welcome,
)
from runtimed.protocol.operation import reply_type

__all__ = ["schema"]

_REQUESTS: Final[dict[str, Any]] = {
    "RequestToDaemon": Request[ClientOperation],
    "RequestToHost": Request[HostOperation],
}
_MESSAGES: Final[dict[str, tuple[Any, ...]]] = {
    "to a daemon": (Hello, _REQUESTS["RequestToDaemon"], Cancel, Refusal),
    "to a host": (Hello, _REQUESTS["RequestToHost"], Cancel, Ack, Refusal),
    "to the asking side": (Welcome, Refusal, Reply, Failure, EventFrame),
}


def schema() -> dict[str, Any]:
    """Return the schema as plain JSON values.

    Its `messages`, `operations` and `events` refer to `$defs`. The wire format is MessagePack; bytes are described as
    base64 text.

    Source: JSON Schema 2020-12.
    """
    operations = {"of a daemon": get_args(ClientOperation), "of a host": get_args(HostOperation)}
    events = get_args(Event)
    kinds = [
        *(kind for group in _MESSAGES.values() for kind in group),
        *(each for group in operations.values() for kind in group for each in (kind, reply_type(kind))),
        *events,
    ]
    distinct = list(dict.fromkeys(kinds))
    references, components = msgspec.json.schema_components(distinct, ref_template="#/$defs/{name}")
    place = dict(zip(distinct, references, strict=True))
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"The protocol of runtimed, version {PROTOCOL_VERSION}",
        "messages": {name: [place[kind] for kind in group] for name, group in _MESSAGES.items()},
        "operations": {
            name: {
                str(kind.__struct_config__.tag): {"operation": place[kind], "reply": place[reply_type(kind)]}
                for kind in group
            }
            for name, group in operations.items()
        },
        "events": {str(kind.__struct_config__.tag): place[kind] for kind in events},
        "$defs": dict(sorted(components.items())),
    }
    # msgspec composes a request's name from those of all its operations.
    text = json.dumps(found)
    for name, kind in _REQUESTS.items():
        text = text.replace(place[kind]["$ref"].removeprefix("#/$defs/"), name)
    renamed: dict[str, Any] = json.loads(text)
    return renamed
