"""Masks secrets in texts by their value, in every form that a page or a browser writes.

Forms, also inside one another: as it is, stripped, percent-encoded (as a component, as a form, in UTF-8 and Latin-1),
as JSON, JavaScript and CSS escape it, as HTML and Markdown do, as the name of a file, in base64 and as hexadecimal
digits. Where a text is cut, at an ellipsis or at the fragment of an address, the part of a secret that is left is
masked as well. What a page computes from a secret in other ways is not recognized.
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import functools
import re
import string
import unicodedata
from collections.abc import Iterator
from html.entities import codepoint2name
from typing import Any, Final

import msgspec

from runtimed.actions import Secret
from runtimed.errors import BrowserError
from runtimed.pages import ActionResult, Observation

__all__ = ["MASK", "Secrets"]

MASK: Final = "***"

_SHORT: Final = 4
"""Length of a secret below which only whole words are masked: it would occur inside other words."""
_PIECE: Final = 4
"""Length of a secret from which its parts are masked where a text is cut."""
_LONG: Final = 6
"""Bytes of a secret from which it is recognized in base64 and as hexadecimal digits."""

_PASSWORD: Final = re.compile(r"(?<=://)([^\s/?#:@]*+):([^\s/?#@]++)(?=@)")
"""The user and the password of an address."""


class Secrets:
    """The secrets that were typed, and ways to mask them in other texts."""

    def __init__(self) -> None:
        self._pattern: re.Pattern[str] | None = None
        self._texts: set[str] = set()
        self._cut: list[_Cut] = []

    def add(self, secret: Secret) -> None:
        """Mask a text from now on."""
        # A field drops line ends, and pages strip spaces.
        given = secret.secret.strip()
        texts = {given, "".join(given.splitlines())}
        texts |= {unicodedata.normalize(form, text) for text in texts for form in ("NFC", "NFD")}
        if not given or texts <= self._texts:
            return
        self._texts |= texts
        forms = [form for text in sorted(self._texts, key=len, reverse=True) for form in _forms(text)]
        self._pattern = re.compile("|".join(form.pattern for form in forms))
        self._cut = [_Cut(form) for form in forms if len(form.parts) > _PIECE]

    def mask(self, text: str) -> str:
        """Return a text without secrets."""
        if self._pattern is None:
            return text
        text = self._pattern.sub(MASK, text)
        for cut in self._cut:
            text = cut.mask(text)
        return text

    def mask_told(self, text: str) -> str:
        """Return a text about a page, such as its address or a log line, without secrets and passwords."""
        return _PASSWORD.sub(rf"\1:{MASK}", self.mask(text)) if "://" in text else self.mask(text)

    def mask_all(self, value: Any) -> Any:
        """Return plain values and frozen structs without secrets."""
        return value if self._pattern is None else _replaced(value, self.mask)

    def mask_all_told(self, value: Any) -> Any:
        """Return plain values about a page without secrets and passwords."""
        return _replaced(value, self.mask_told)

    def mask_result(self, result: ActionResult) -> ActionResult:
        """Return the result of an action without secrets."""
        return msgspec.structs.replace(
            result,
            message=self.mask_told(result.message),
            data=self.mask_all(result.data),
            detail=self.mask_all(result.detail),
        )

    def mask_observation(self, observation: Observation) -> Observation:
        """Return an observation without secrets. A selector that contained one is None: masked, it finds nothing."""
        masked: Observation = self.mask_all(observation)
        elements = tuple(
            one if one.selector == before.selector else msgspec.structs.replace(one, selector=None)
            for one, before in zip(masked.elements, observation.elements, strict=True)
        )
        return msgspec.structs.replace(masked, elements=elements)

    @contextlib.contextmanager
    def mask_errors(self) -> Iterator[None]:
        """Raise errors of a browser without secrets in their sentences and data."""
        try:
            yield
        except BrowserError as exc:
            raise type(exc)(self.mask_told(exc.message), **self.mask_all(exc.data)) from None


def _replaced(value: Any, mask: Any) -> Any:
    match value:
        case str():
            return mask(value)
        case dict():
            return {_replaced(key, mask): _replaced(one, mask) for key, one in value.items()}
        case list() | tuple():
            return type(value)(_replaced(one, mask) for one in value)
        case msgspec.Struct():
            return msgspec.structs.replace(
                value, **{name: _replaced(getattr(value, name), mask) for name in value.__struct_fields__}
            )
        case _:
            return value


class _Part:
    """A character of a form, a run of spaces, or one of backslashes.

    Args:
        alternatives: Patterns of its spellings.
        first: The characters with which they begin, as the inside of a set.
        is_hash: Whether it begins the fragment of an address in its plain spelling.
    """

    def __init__(self, alternatives: list[str], first: str, *, is_hash: bool = False) -> None:
        self.alternatives = alternatives
        self.pattern = f"(?:{'|'.join(alternatives)})"
        self.first = first
        self.is_hash = is_hash

    def ends(self, text: str, starts: set[int]) -> set[int]:
        """Return where it may end in a text if it begins at one of these places."""
        tried = map(_compiled, self.alternatives)
        return {found.end() for one in tried for start in starts if (found := one.match(text, start))}


class _Form:
    """One way to write a secret.

    Args:
        parts: Its parts in order.
        around: A pattern with `{}` in the place of the whole.
    """

    def __init__(self, parts: list[_Part], around: str = "{}") -> None:
        self.parts = parts
        # Skips quickly what it cannot begin with.
        self.pattern = f"(?=[{parts[0].first}]){around.replace('{}', ''.join(part.pattern for part in parts))}"


class _Cut:
    """Masks the rest of a secret where a text is cut."""

    def __init__(self, form: _Form) -> None:
        self._parts = form.parts
        self._longest = _LONGEST_PART * len(form.parts)
        self._has_hash = any(part.is_hash for part in form.parts)
        heads, tails = form.parts[:_PIECE], form.parts[-_PIECE:]
        self._head, self._tail = (
            re.compile(f"(?=[{parts[0].first}])" + "".join(part.pattern for part in parts)) for parts in (heads, tails)
        )

    def mask(self, text: str) -> str:
        """Return a text without the beginning of the secret before a cut, and without its end behind one."""
        done, shown = 0, []
        for start, end in sorted([*self._heads(text), *self._tails(text)]):
            if start >= done:
                shown += [text[done:start], MASK]
                done = end
        return "".join([*shown, text[done:]])

    def _heads(self, text: str) -> Iterator[tuple[int, int]]:
        marks = [found.start() for found in _CUTS.finditer(text)]
        if self._has_hash and re.search("[/?]", text):
            marks = [0, *marks, len(text)]
        if not marks:
            return
        for found in self._head.finditer(text, max(0, marks[0] - self._longest), marks[-1]):
            reached = [{found.start()}]
            while reached[-1] and len(reached) < len(self._parts):
                reached.append(self._parts[len(reached) - 1].ends(text, reached[-1]))
            in_address = _ADDRESS.search(text, max(0, found.start() - _LONG_ADDRESS), found.start()) is not None
            for count in range(len(reached) - 1, _PIECE - 1, -1):
                cut = self._cut_at(text, reached[count], self._parts[count], in_address=in_address)
                if cut is not None:
                    yield found.start(), cut
                    break

    @staticmethod
    def _cut_at(text: str, ends: set[int], following: _Part, *, in_address: bool) -> int | None:
        """Return where a text is cut whose rest of a secret ends at one of these places."""
        for end in ends:
            found = _CUT.match(text, end)
            if found is None and in_address:
                # An address ends where the secret has a `#`, or an entity such as `&#39;`.
                found = (_END_OF_ADDRESS if following.is_hash else _IN_ENTITY).match(text, end)
            if found is not None:
                return found.end()
        return None

    def _tails(self, text: str) -> Iterator[tuple[int, int]]:
        marks = [found.end() for found in _ELLIPSIS.finditer(text)]
        is_fragment = self._has_hash and text.startswith("#")
        if is_fragment:
            marks.insert(0, 0)
        for found in self._tail.finditer(text, marks[0], marks[-1] + self._longest) if marks else ():
            start = marks[bisect.bisect_right(marks, found.end()) - 1]
            if found.end() - start > self._longest:
                continue
            in_escape = _REST_OF_ESCAPE.match(text, start)
            begins = range(start, start + 1 if in_escape is None else in_escape.end() + 1)
            for first, part in enumerate(self._parts[: 1 - _PIECE]):
                reached = set(begins) if part.is_hash or start or not is_fragment else set()
                for one in self._parts[first:]:
                    reached = one.ends(text, reached) if reached else reached
                if reached:
                    yield start, max(reached)
                    break


@functools.lru_cache(4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _forms(text: str) -> list[_Form]:
    """Return the forms of a text."""
    data = text.encode("utf-8", "surrogatepass")
    around = "{}"
    if len(text) < _SHORT:
        # A word may begin after an escape, too, which ends with a digit.
        around = r"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})){}(?!\w)"
    whole = _Form([_part(part) for part in re.findall(r"\s+|\\+|.", text)], around)
    if len(data) < _LONG:
        return [whole]
    return [whole, *(_base64(shift, data) for shift in range(3)), _hexadecimal(data)]


_ELLIPSIS: Final = re.compile(r"…|\.{3}")
_CUT: Final = re.compile(rf"(?:[%&\\][\w#;%&\\{{]{{0,30}})?(?={_ELLIPSIS.pattern})")
"""The end of a text that is cut, with the rest of an escape."""
_REST_OF_ESCAPE: Final = re.compile(r"[\w#;%{}]{1,10}")
"""The rest of an escape behind a cut."""
_END_OF_ADDRESS: Final = re.compile(r"(?=[\s\"'<>)\]},]|\Z)")
_IN_ENTITY: Final = re.compile(rf"(?:&|%26)(?:amp(?:;|%3[bB]))*{_END_OF_ADDRESS.pattern}")
_CUTS: Final = re.compile(f"{_ELLIPSIS.pattern}|{_IN_ENTITY.pattern}")
_ADDRESS: Final = re.compile(r"[/?]\S*\Z")
_LONG_ADDRESS: Final = 4096
"""Characters before a secret in which the beginning of its address is searched."""
_LONGEST_PART: Final = 40
"""Longest spelling of one character that is searched where a text is cut."""
_NO_NAME: Final = '"*/:<>?|.'
"""Characters that become an underscore in the names of downloads, as a backslash does.

Source: Chromium, net/base/filename_util_internal.cc.
"""
_PERCENT: Final = r"%(?:25){0,3}"
_ZEROS: Final = r"0{0,6}"
_BACKSLASH: Final = rf"(?:\\|{_PERCENT}5[cC])"
_ESCAPES: Final = rf"{_BACKSLASH}{{1,7}}+"
_HASH: Final = rf"(?:\#|{_PERCENT}23)"
_END: Final = rf"(?:;|{_PERCENT}3[bB])"
_AMPERSAND: Final = rf"(?:&|{_PERCENT}26)(?:amp{_END}){{0,3}}"
_SPACES: Final = (
    rf"(?:\s|\+|{_PERCENT}(?:09|0[aAdD]|20|[cC]2{_PERCENT}[aA]0)|{_ESCAPES}(?:[nrt]|u00(?:09|0[aAdD]|20|[aA]0))|"
    rf"{_AMPERSAND}(?:nbsp|Tab|NewLine|{_HASH}{_ZEROS}(?:9|10|13|32|160)|{_HASH}[xX]{_ZEROS}(?:9|[aAdD]|20|[aA]0)){_END})++"
)
"""Nested escapes are bounded, since a text of nothing else would take minutes."""


def _part(part: str) -> _Part:
    """Return the spellings of a character, of a run of spaces, or of one of backslashes."""
    if part.isspace():
        return _Part([_SPACES], r"\s+%\\&")
    if part[0] == "\\":
        one = "|".join([_BACKSLASH, *_escaped(part[0]), "_"])
        return _Part([rf"(?:{one}){{{len(part)},{4 * len(part)}}}"], r"\\%&_")
    plain, escaped = [*_percent(part), *(["_"] if part in _NO_NAME else [])], _escaped(part)
    quoted = [rf"{_BACKSLASH}{{1,7}}+(?:{'|'.join([*plain, escaped[-1]])})"] if part in string.punctuation else []
    return _Part([*plain, *escaped, *quoted], rf"{re.escape(part)}_%\\&", is_hash=part == "#")


def _percent(character: str) -> list[str]:
    """Return patterns for a character as it is, and as addresses and forms write it."""
    forms = [re.escape(character)]
    for encoding in ("utf-8", "cp1252"):
        data = character.encode(encoding, "surrogatepass" if encoding == "utf-8" else "ignore")
        if data:
            forms.append("".join(f"{_PERCENT}{_any_case(f'{byte:02x}')}" for byte in data))
    return list(dict.fromkeys(forms))


def _escaped(character: str) -> list[str]:
    """Return patterns for a character as JavaScript and JSON strings write it, and as HTML and its forms do."""
    code = ord(character)
    units = character.encode("utf-16-be", "surrogatepass").hex()
    script = "".join(f"{_ESCAPES}u{_any_case(units[n : n + 4])}" for n in range(0, len(units), 4))
    forms = [script, rf"{_ESCAPES}u\{{{_ZEROS}{_any_case(f'{code:x}')}\}}"]
    if code < 256:
        forms.append(f"{_ESCAPES}x{_any_case(f'{code:02x}')}")
    names = f"{_HASH}{_ZEROS}{code}|{_HASH}[xX]{_ZEROS}{_any_case(f'{code:x}')}"
    if code in codepoint2name:
        names += f"|{codepoint2name[code]}"
    if character == "'":
        names += "|apos"
    return [*forms, rf"{_AMPERSAND}(?:{names}){_END}"]


def _any_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _base64(shift: int, data: bytes) -> _Form:
    """Return the base64 form of bytes at this offset in their group of three."""
    text = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
    # The first and the last character may have bits of their neighbours.
    text = text[(0, 2, 3)[shift] : len(text) - 1 if (shift + len(data)) % 3 else len(text)]
    kinds = {"+": (r"[+\-]", "%2[bB]"), "/": ("[/_]", r"\\/", "%2[fF]")}
    return _Form([_Part(list(kinds.get(one, (one,))), rf"{re.escape(one)}_\-%\\") for one in text])


def _hexadecimal(data: bytes) -> _Form:
    return _Form([_Part([_any_case(one)], one + one.upper()) for one in data.hex()])
