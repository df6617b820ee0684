"""Reads numbers as people write them, by the conventions of the page's language. Nothing here touches a browser.

A text that can be read in two ways is refused with both readings, never guessed.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import Final, Literal

import msgspec
from babel import Locale, UnknownLocaleError
from babel.numbers import get_currency_precision, get_decimal_symbol, get_group_symbol

__all__ = ["NoNumber", "Pick", "Unreadable", "is_language", "read_number"]

Pick = Literal["first", "last", "price"]

_SPACES: Final = "\u00a0\u202f\u2009\u2007"
"""Those that hold the groups of one number together."""
_INVISIBLE: Final = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\u00ad\u200b]")
_MARKS: Final = str.maketrans(
    {"\uff0e": ".", "\uff0c": ",", "\uffe5": "¥", "\u066c": "'", "\u2019": "'", "\u2212": "-", "\u2013": "-"}
)
_ATOM: Final = re.compile(
    rf"(?:(?:\d|(?<![\w.,])[.,\u066b](?=\d))(?:\d|[.,'\u066b](?=\d)|[{_SPACES}](?=\d{{3}}(?!\d)))*"
    r"(?:[eE][-+]?\d+(?!\w))?)?[ \u2009\u2044]?[¼-¾⅐-⅞]"
    rf"|(?:\d|(?<![\w.,])[.,\u066b](?=\d))(?:\d|[.,'\u066b](?=\d)|[{_SPACES}](?=\d{{3}}(?!\d)))*"
    r"(?:[eE][-+]?\d+(?!\w))?"
)
_SPACED: Final = re.compile(r"\d{1,3}(?: \d{3})+(?:[.,]\d+)?")
_GROUPED: Final = r"(?!0)\d{1,3}(?:%s\d{3})+"
_INDIAN: Final = r"(?!0)\d{1,2}(?:,\d{2})+,\d{3}"
_UNKNOWN: Final = "XXX"
"""ISO 4217's code of no currency, for a sign that no language knows."""


class Unreadable(ValueError):
    """A text holds no number, several, or one that can be read in two ways; the message says which."""


class NoNumber(Unreadable):
    """A text holds no number."""


class _Number(msgspec.Struct, frozen=True):
    """A number in a text.

    Attributes:
        text: As it is written.
        readings: What it may mean, by its decimal separator; nothing for what is none, such as `1.2.3`.
        currency: The code of the currency that stands beside it.
        glued: Whether it is part of a word, such as `H2O`.
    """

    text: str
    readings: dict[str, Decimal]
    currency: str | None
    glued: bool


def is_language(tag: str) -> bool:
    """Whether the conventions of a language are known; it is written as in HTML, such as `de` or `pt-BR`."""
    return _locale(tag) is not None


def read_number(
    text: str,
    *,
    declared: str | None = None,
    language: str | None = None,
    fallback: str | None = None,
    pick: Pick | None = None,
    whole: bool = False,
) -> int | float:
    """Return the number that a text holds.

    Args:
        text: As a page shows it.
        declared: The language whose conventions hold for sure, such as `de-CH`.
        language: In which the page says that it is written.
        fallback: The language of the browser.
        pick: Which of several numbers is meant.
        whole: Whether it counts something: three digits behind a separator are a group then.

    Raises:
        Unreadable: If there is not exactly one number with one meaning.
    """
    locale, other = _locale(declared) or _locale(language), _locale(fallback)
    found = list(_numbers(_plain(text), locale or other))
    found = [number for number in found if not number.glued] or found
    if pick == "price":
        found = [number for number in found if number.currency is not None]
    if not found:
        raise NoNumber(f"is no {'price' if pick == 'price' else 'number'}: {text.strip()!r}")
    if len(found) > 1 and pick not in ("first", "last"):
        what, picks = ("prices", "'first' or 'last'") if pick else ("numbers", "'first', 'last' or 'price'")
        raise Unreadable(
            f"has {len(found)} {what}, {' and '.join(number.text for number in found)}, in {text.strip()!r}; "
            f"say which with pick: {picks}, or narrow the selector"
        )
    number = found[-1 if pick == "last" else 0]
    if not number.readings:
        raise NoNumber(f"is no number: {text.strip()!r}")
    if len(set(number.readings.values())) == 1:
        value = next(iter(number.readings.values()))
    else:
        told = {mark for each in found if len(each.readings) == 1 for mark in each.readings}
        mark = told.pop() if len(told) == 1 and declared is None else None
        value = (
            number.readings[mark]
            if mark is not None
            else _decide(number, locale, other, sure=declared is not None, whole=whole)
        )
    if not whole:
        return float(value)
    if value != value.to_integral_value():
        raise Unreadable(f"is no whole number: {number.text}; declare it as number")
    return int(value)


def _decide(number: _Number, locale: Locale | None, other: Locale | None, *, sure: bool, whole: bool) -> Decimal:
    """Return what is meant where three digits stand behind the only separator: decimals, or a group."""
    mark, contrary = (",", ".") if "," in number.text else (".", ",")
    decimals, group = number.readings[mark], number.readings[contrary]

    def read(by: Locale | None) -> Decimal | None:
        if by is None:
            return None
        return {get_decimal_symbol(by): decimals, get_group_symbol(by): group}.get(mark)

    said = read(locale)
    if sure and said is not None:
        return said
    if whole:
        return group
    if number.currency is not None and get_currency_precision(number.currency) < 3:
        # Prices have no three decimals, but for fuel: the language, or the land of the currency, must not say so.
        if (read(_home(number.currency)) if locale is None else said) != decimals:
            return group
    elif said is not None:
        return said
    elif locale is None and read(other) == group:
        return group
    one, two = ("en", "de") if mark == "," else ("de", "en")
    raise Unreadable(
        f"may be {_shown(group)} or {_shown(decimals)}: {number.text!r}; "
        f"declare locale: {one!r} for the one, locale: {two!r} for the other"
    )


# --- what stands in a text ---


def _plain(text: str) -> str:
    """Write the digits and marks of all scripts in one way."""
    text = _INVISIBLE.sub("", text).translate(_MARKS)
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _numbers(text: str, locale: Locale | None) -> Iterator[_Number]:
    atoms = [match.span() for match in _ATOM.finditer(text)]
    while atoms:
        # Plain spaces hold groups together, too, where they cannot stand between two numbers.
        count = next(
            (n for n in range(len(atoms), 1, -1) if _is_one(text, atoms[0][0], atoms[n - 1][1], locale)),
            1,
        )
        yield _number(text, atoms[0][0], atoms[count - 1][1], locale)
        del atoms[:count]


def _is_one(text: str, start: int, end: int, locale: Locale | None) -> bool:
    body = text[start:end]
    if not _SPACED.fullmatch(body):
        return False
    if body.count(" ") > 1:
        return True
    spaces = locale is not None and get_group_symbol(locale) in _SPACES
    after_word = re.search(r"[^\W\d_] $", text[:start]) is not None
    priced = _currency(text, start, end, locale) is not None
    if priced or re.search(r"[.,]", body):
        return spaces or (priced and not after_word)
    return spaces and not after_word


def _number(text: str, start: int, end: int, locale: Locale | None) -> _Number:
    body = text[start:end]
    word, scale = _scale(text[end:], locale)
    before = text[:start]
    symbol = _ending_symbol(before, locale)
    signed = before if symbol is None else before.rstrip()[: -len(symbol)].rstrip()
    sign = -1 if re.search(r"(?<![\w)])-$", signed) else 1
    return _Number(
        text=("-" if sign < 0 else "") + body,
        readings={mark: sign * value * scale for mark, value in _readings(body).items()},
        currency=_currency(text, start, end + len(word), locale),
        glued=symbol is None and re.search(r"[^\W\d_]$", before) is not None,
    )


def _readings(body: str) -> dict[str, Decimal]:
    """Return what a number may mean, by its decimal separator; nothing if it is none."""
    fraction = Decimal(0)
    if not body[-1].isdecimal():
        fraction, body = Decimal(str(unicodedata.numeric(body[-1]))), body[:-1].rstrip(_SPACES + " \u2044")
    number, _, exponent = re.sub(f"[{_SPACES} ]", " ", body or "0").lower().partition("e")
    marks = ("\u066b",) if "\u066b" in number else (".", ",")
    found = {}
    for mark in marks:
        left, point, right = number.rpartition(mark) if mark in number else (number, "", "")
        separators = set(re.sub(r"\d", "", left))
        if (point and not right.isdecimal()) or len(separators) > 1 or mark in separators:
            continue
        if separators and not re.fullmatch(f"{_GROUPED % re.escape(min(separators))}|{_INDIAN}", left):
            continue
        digits = re.sub(r"\D", "", left) or "0"
        found[mark] = Decimal(f"{digits}.{right or 0}e{exponent or 0}") + fraction
    return found


def _shown(value: Decimal) -> str:
    return f"{value.normalize():f}"


# --- what the languages know ---


@functools.lru_cache(maxsize=64)
def _locale(tag: str | None) -> Locale | None:
    tag = (tag or "").replace("_", "-")
    while tag:
        try:
            return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            tag = tag.rpartition("-")[0]
    return None


@functools.lru_cache(maxsize=64)
def _home(currency: str) -> Locale | None:
    """Return the conventions of a currency's land, with whose code its own begins (ISO 4217); the euro has none."""
    try:
        return Locale.parse(f"und_{currency[:2]}")
    except (UnknownLocaleError, ValueError):
        return None


@functools.lru_cache(maxsize=64)
def _symbols(locale: Locale | None) -> tuple[tuple[str, str], ...]:
    """Return the signs of currencies with their codes, the longest first."""
    english = Locale("en")
    codes = [str(code) for code in english.currencies]
    signs = [
        (str(sign), str(code)) for each in (locale, english) if each for code, sign in each.currency_symbols.items()
    ]
    for code in codes:
        home = _home(code)
        if home is not None:
            signs.append((str(home.currency_symbols.get(code, code)), code))
    found = {code: code for code in codes}
    for sign, code in signs:
        if len(sign) > 1 or not sign.isalpha():
            found.setdefault(sign, code)
    return tuple(sorted(found.items(), key=lambda one: -len(one[0])))


def _ending_symbol(text: str, locale: Locale | None) -> str | None:
    """Return the sign of a currency at the end of a text."""
    text = text[-12:].rstrip()
    for sign, _ in _symbols(locale):
        if text.endswith(sign) and not (sign[0].isalpha() and text[: -len(sign)][-1:].isalpha()):
            return sign
    return text[-1] if text and unicodedata.category(text[-1]) == "Sc" else None


def _currency(text: str, start: int, end: int, locale: Locale | None) -> str | None:
    """Return the code of the currency that stands beside a number."""
    symbols = dict(_symbols(locale))
    before = _ending_symbol(text[:start], locale)
    if before is not None:
        return symbols.get(before, _UNKNOWN)
    after = re.sub(r"^[.,][-\u2014]+", "", text[end : end + 16]).lstrip()
    for sign, code in symbols.items():
        if after.startswith(sign) and not (sign[-1].isalpha() and after[len(sign) :][:1].isalpha()):
            return code
    return _UNKNOWN if after and unicodedata.category(after[0]) == "Sc" else None


@functools.lru_cache(maxsize=64)
def _scales(locale: Locale | None) -> tuple[tuple[str, Decimal], ...]:
    """Return the words for thousands, millions and so on, with the space before them where they have one."""
    found = {"k": Decimal(1000)}
    for each, width in itertools.product((Locale("en"), locale), ("short", "long")):
        if each is None:
            continue
        for patterns in each.compact_decimal_formats.get(width, {}).values():
            for power, pattern in patterns.items():
                zeros, _, word = pattern.pattern.rpartition("0")
                word = _space(word.replace("'", ""))
                if word.strip():
                    found[word] = Decimal(power).scaleb(-len(zeros))
    return tuple(sorted(found.items(), key=lambda one: -len(one[0])))


def _scale(rest: str, locale: Locale | None) -> tuple[str, Decimal]:
    rest = _space(rest[:32])
    for word, scale in _scales(locale):
        if rest.startswith(word) and not re.match(r"\w", rest[len(word) :]):
            return word, scale
    return "", Decimal(1)


def _space(text: str) -> str:
    return re.sub(f"[{_SPACES}]", " ", text)
