"""`python -m runtimed.protocol` prints the JSON schema of the protocol."""

from __future__ import annotations

import json

from runtimed.protocol.schema import schema

if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, ensure_ascii=False))  # noqa: T201  # which is what it is for
