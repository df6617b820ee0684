"""Takes secrets out of texts, by their value, in whatever form a page or a browser writes them.

Forms, also inside one another: as it is, stripped, percent-encoded (as a component, as a form, in UTF-8 and Latin-1),
as JSON and JavaScript escape it, as HTML does, as the name of a file, in base64 and as
hexadecimal digits. What a page computes from a secret
in other ways is not recognized.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from html.entities import codepoint2name
from typing import Any, Final

import msgspec

from runtimed.actions import Secret

__all__ = ["MASK", "Secrets"]

MASK: Final = "***"

_SHORT: Final = 4
"""Characters of a secret below which only whole words are taken for it: it would tear others apart."""
_LONG: Final = 6
"""Bytes of a secret from which on it is recognized in base64 and as hexadecimal digits."""

_PASSWORD: Final = re.compile(r"(?<=://)([^\s/?#:@]*+):([^\s/?#@]++)(?=@)")
"""The user and the password of an address."""


class Secrets:
    """The texts that were typed as secrets, and ways to take them out of other texts."""

    def __init__(self) -> None:
        self._pattern: re.Pattern[str] | None = None
        self._texts: set[str] = set()

    def add(self, secret: Secret) -> None:
        """Mask a text from now on."""
        # A field drops the ends of lines, and pages drop the spaces around what was typed.
        given = secret.secret.strip()
        texts = {given, "".join(given.splitlines())}
        texts |= {unicodedata.normalize(form, text) for text in texts for form in ("NFC", "NFD")}
        if not given or texts <= self._texts:
            return
        self._texts |= texts
        parts = [part for text in sorted(self._texts, key=len, reverse=True) for part in _forms(text)]
        self._pattern = re.compile("|".join(parts))

    def mask(self, text: str) -> str:
        """Return a text without secrets."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def mask_told(self, text: str) -> str:
        """Return what is said of a page, such as its address or a line of the log, without secrets and passwords."""
        return _PASSWORD.sub(rf"\1:{MASK}", self.mask(text)) if "://" in text else self.mask(text)

    def mask_all(self, value: Any) -> Any:
        """Return plain values and frozen structs without secrets."""
        return value if self._pattern is None else _replaced(value, self.mask)

    def mask_all_told(self, value: Any) -> Any:
        """Return plain values that are said of a page without secrets and passwords."""
        return _replaced(value, self.mask_told)


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


def _forms(text: str) -> list[str]:
    """Return patterns that match a text in its forms."""
    data = text.encode("utf-8", "surrogatepass")
    whole = "".join(map(_form, re.findall(r"\s+|\\+|.", text)))
    if len(text) < _SHORT:
        # A word may begin after an escape, too, which ends with a digit.
        whole = rf"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{{2}})|(?<=\\u[0-9A-Fa-f]{{4}})){whole}(?!\w)"
    if len(data) < _LONG:
        return [whole]
    return [whole, *map(_base64, range(3), [data] * 3), *_hexadecimal(data)]


_NO_NAME: Final = '"*/:<>?|.'
"""Characters in place of which the names of downloads have an underscore, as for a backslash.

Source: Chromium, net/base/filename_util_internal.cc.
"""
_PERCENT: Final = r"%(?:25){0,3}"
_ZEROS: Final = r"0{0,6}"
_BACKSLASH: Final = rf"(?:\\|{_PERCENT}5[cC])"
_ESCAPES: Final = rf"{_BACKSLASH}{{1,7}}"
_HASH: Final = rf"(?:\#|{_PERCENT}23)"
_END: Final = rf"(?:;|{_PERCENT}3[bB])"
_AMPERSAND: Final = rf"(?:&|{_PERCENT}26)(?:amp{_END}){{0,3}}"
_SPACES: Final = (
    rf"(?:\s|\+|{_PERCENT}(?:09|0[aAdD]|20|[cC]2{_PERCENT}[aA]0)|{_ESCAPES}(?:[nrt]|u00(?:09|0[aAdD]|20|[aA]0))|"
    rf"{_AMPERSAND}(?:nbsp|Tab|NewLine|{_HASH}{_ZEROS}(?:9|10|13|32|160)|{_HASH}[xX]{_ZEROS}(?:9|[aAdD]|20|[aA]0)){_END})++"
)
"""Escapes inside escapes are bounded, lest a text of nothing else take minutes."""


def _form(part: str) -> str:
    """Return a pattern for a character, a run of spaces, or one of backslashes."""
    if part.isspace():
        return _SPACES
    if part[0] == "\\":
        return rf"(?:{_BACKSLASH}|{_escaped(part[0])}|_){{{len(part)},{4 * len(part)}}}"
    before = rf"{_BACKSLASH}{{0,7}}" if part in "\"'/`" else ""
    in_name = "|_" if part in _NO_NAME else ""
    return rf"{before}(?:{_percent(part)}|{_escaped(part)}{in_name})"


def _percent(character: str) -> str:
    """Return a pattern for a character as it is, and as addresses and forms write it."""
    forms = [re.escape(character)]
    for encoding in ("utf-8", "cp1252"):
        data = character.encode(encoding, "surrogatepass" if encoding == "utf-8" else "ignore")
        if data:
            forms.append("".join(f"{_PERCENT}{_any_case(f'{byte:02x}')}" for byte in data))
    return "|".join(dict.fromkeys(forms))


def _escaped(character: str) -> str:
    """Return a pattern for a character as strings of JavaScript and JSON, and as HTML and its forms write it."""
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
    return "|".join([*forms, rf"{_AMPERSAND}(?:{names}){_END}"])


def _any_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _base64(shift: int, data: bytes) -> str:
    """Return a pattern for bytes in base64, where so many others stand before the group of three that they begin in."""
    text = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
    # The first and the last character may hold bits of what stands beside.
    text = text[(0, 2, 3)[shift] : len(text) - 1 if (shift + len(data)) % 3 else len(text)]
    return "".join({"+": r"(?:[+\-]|%2[bB])", "/": r"(?:[/_]|\\/|%2[fF])"}.get(one, one) for one in text)


def _hexadecimal(data: bytes) -> list[str]:
    return [_any_case(data.hex())]
