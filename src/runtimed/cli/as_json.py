"""Output for programs: the public values as JSON, times in ISO 8601, durations in seconds, bytes in base64."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

__all__ = ["jsonable", "print_json"]


def jsonable(value: Any) -> Any:
    """Convert a value to JSON's types. Numbers that JSON lacks (NaN, infinities) become null."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return str(value)


def print_json(value: Any) -> None:
    """Print a value as JSON in ASCII, which every terminal and encoding can show whatever an id contains."""
    json.dump(jsonable(value), sys.stdout, indent=2)
    sys.stdout.write("\n")
