"""Suggests what somebody may have meant who mistyped a name. Nothing here does I/O."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with what is similar to a word, with a space before it; empty if nothing is."""
    close = difflib.get_close_matches(word, list(known), 3, 0.6)
    # Only those that are nearly as similar as the most similar one.
    likeness = [difflib.SequenceMatcher(None, word, one).ratio() for one in close]
    close = [one for one, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - 0.1]
    return f" Did you mean {' or '.join(close)}?" if close else ""
