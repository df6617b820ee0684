"""Answers of kernels are passed on as they are, and cut where they would fit into no reply."""

from typing import Any

import pytest

from runtimed.host.answers import MAX_ANSWER, bounded
from runtimed.protocol.codec import pack


def reply(matches: list[Any], **fields: Any) -> dict[str, Any]:
    return {"status": "ok", "matches": matches, "cursor_start": 0, "cursor_end": 1, "metadata": {}, **fields}


def test_an_ordinary_answer_stays_as_it_is():
    types = {"_jupyter_types_experimental": [{"start": 0, "end": 1, "text": "print", "type": "function"}]}
    content = reply(["print", "pow"], metadata=types)

    assert bounded(content) is content


@pytest.mark.parametrize("match", ["x", "name" * 10, "\U0001f600" * 300, "y" * (MAX_ANSWER // 2)])
def test_of_too_many_matches_the_first_are_kept(match):
    content = reply([match] * (4 * MAX_ANSWER // len(match.encode())), metadata={"types": [match] * 1000})

    kept = bounded(content)

    assert kept == reply(content["matches"][: len(kept["matches"])])
    assert MAX_ANSWER // 3 < len(pack(kept)) < 2 * MAX_ANSWER


def test_of_texts_without_end_the_beginning_is_kept():
    data = {f"text/{n}": "\U0001f600" * MAX_ANSWER for n in range(20)}
    kept = bounded({"status": "ok", "found": True, "data": data, "metadata": {}, "more": "z" * MAX_ANSWER})

    assert len(pack(kept)) < 2 * MAX_ANSWER
    assert kept.keys() == {"status", "found", "data", "metadata"}
    assert all(text.endswith("characters left out)") for text in kept["data"].values())
