"""Reads numbers as people write them, by the conventions of the page's language. Nothing here touches a browser.

A text with two readings is refused with both of them, never guessed.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import Final, Literal

import msgspec
from babel import Locale
from babel.numbers import get_currency_precision, get_decimal_symbol, get_group_symbol

from runtimed.browser.conventions import (
    EASTERN,
    SPACES,
    find_currency,
    find_home,
    find_locale,
    find_scale,
    find_symbol,
)

__all__ = ["APART", "RAISED", "NoNumber", "Pick", "Unreadable", "is_language", "read_number"]

Pick = Literal["first", "last", "price"]

RAISED: Final = "\x1e"
"""Marks digits in a text that the page shows raised, or smaller than those before them."""
APART: Final = "\x1f"
"""Marks a gap between digits that the page's style makes."""

_INVISIBLE: Final = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\u00ad\u200b]")
_MARKS: Final = str.maketrans(
    {"\uff0e": ".", "\uff0c": ",", "\uffe5": "¥", "\u066c": "'", "\u2019": "'", "\u2212": "-", "\u2013": "-"}
)
_ATOM: Final = re.compile(
    rf"(?:(?:\d|(?<![\w.,])[.,\u066b](?=\d))(?:\d|[.,'\u066b](?=\d)|[{SPACES}](?=\d{{3}}(?!\d)))*"
    r"(?:[eE][-+]?\d+(?!\w))?)?[ \u2009\u2044]?[¼-¾⅐-⅞]"
    rf"|(?:\d|(?<![\w.,])[.,\u066b](?=\d))(?:\d|[.,'\u066b](?=\d)|[{SPACES}](?=\d{{3}}(?!\d)))*"
    r"(?:[eE][-+]?\d+(?!\w))?"
)
_SPACED: Final = re.compile(r"\d{1,3}(?: \d{3})+(?:[.,]\d+)?")
_GROUPED: Final = r"(?!0)\d{1,3}(?:%s\d{3})+"
_INDIAN: Final = r"(?!0)\d{1,2}(?:,\d{2})+,\d{3}"
_SUPERSCRIPTS: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SCRIPTS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


class Unreadable(ValueError):
    """A text has no number, several, or one with two readings; the message says which."""


class NoNumber(Unreadable):
    """A text has no number."""


class _Number(msgspec.Struct, frozen=True):
    """A number in a text.

    Attributes:
        text: As it is written.
        readings: Decimal separator → value; empty for what is no number, such as `1.2.3`.
        currency: Code of the currency beside it.
        glued: Whether it is part of a word, such as `H2O`, or a raised note at one, such as `€¹`.
        end: Its end in the text, the word for its scale included.
        scale: Its unit, such as a million; None for a word that the language does not know.
        apart: Whether only the page's style separates it from the number before it.
        raised: Whether it is raised behind the number before it.
    """

    text: str
    readings: dict[str, Decimal]
    currency: str | None
    glued: bool
    end: int
    scale: Decimal | None
    apart: bool = False
    raised: bool = False


def is_language(tag: str) -> bool:
    """Whether the conventions of a language are known; it is written as in HTML, such as `de` or `pt-BR`."""
    return find_locale(tag) is not None


def read_number(
    text: str,
    *,
    declared: str | None = None,
    language: str | None = None,
    fallback: str | None = None,
    pick: Pick | None = None,
    whole: bool = False,
) -> int | float:
    """Return the number in a text.

    Args:
        text: The page's text, with `RAISED` and `APART` at its digits.
        declared: The language whose conventions certainly apply, such as `de-CH`.
        language: The page's own language.
        fallback: The browser's language.
        pick: Which of several numbers is meant.
        whole: Whether it is a count: then three digits behind a separator are a group.

    Raises:
        Unreadable: If there is not exactly one number with one reading.
    """
    locale, other = find_locale(declared) or find_locale(language), find_locale(fallback)
    found = list(_numbers(_plain(text), locale or other))
    found = [number for number in found if not number.glued] or found
    text = _told(text)
    if pick == "price":
        found = _prices(found)
    if not found:
        raise NoNumber(f"is no {'price' if pick == 'price' else 'number'}: {text!r}")
    if pick not in ("first", "last"):
        # Shops write one price twice: for the eye, and for screen readers.
        meanings = {(number.currency, *number.readings.values()) for number in found}
        found = found[:1] if len(meanings) == 1 and found[0].currency is not None else found
        for number, behind in itertools.pairwise(found):
            if behind.raised:
                raise Unreadable(
                    f"is {number.text} with a raised {behind.text}, in {text!r}, which may be a note, a power or part "
                    f"of the number; pick: 'first' gives {number.text}"
                )
    if len(found) > 1 and pick not in ("first", "last"):
        what, picks = ("prices", "'first' or 'last'") if pick else ("numbers", "'first', 'last' or 'price'")
        raise Unreadable(
            f"has {len(found)} {what}, {' and '.join(number.text for number in found)}, in {text!r}; "
            f"say which with pick: {picks}, or narrow the selector"
        )
    number = found[-1 if pick == "last" else 0]
    if not number.readings:
        raise NoNumber(f"is no number: {text!r}")
    if number.scale is None:
        raise Unreadable(
            f"runs on into a word that may be a scale, such as thousands or millions: {text!r}; "
            "declare the locale that knows it, or read it as string"
        )
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
    """Return the meaning of three digits behind the only separator: decimals, or a group."""
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
        # Except for fuel, prices have no three decimals: the language, or the currency's country, must not say so.
        if (read(find_home(number.currency)) if locale is None else said) != decimals:
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
    """Normalize the digits and marks of all scripts."""
    text = _INVISIBLE.sub("", text).translate(_MARKS)
    text = re.sub(r"(?<=[\d€$£¥])[⁰¹²³⁴-⁹]+", lambda raised: RAISED + raised[0].translate(_SCRIPTS), text)
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _told(text: str) -> str:
    """Return a text as a message shows it."""
    text = re.sub(rf"{RAISED}(\d+)", lambda raised: raised[1].translate(_SUPERSCRIPTS), text)
    return text.replace(APART, " ").replace(RAISED, "").strip()


def _prices(found: list[_Number]) -> list[_Number]:
    """Return the numbers beside a currency, and those that may belong to one of them."""
    prices: list[_Number] = []
    for place, number in enumerate(found):
        before = found[place - 1] if place else None
        after = found[place + 1] if place + 1 < len(found) else None
        near = (number.apart or number.raised) and before is not None and before.currency is not None
        near = near or (after is not None and after.apart and after.currency is not None)
        if number.currency is None and not near:
            continue
        prices.append(number)
    return prices


def _numbers(text: str, locale: Locale | None) -> Iterator[_Number]:
    """Yield the numbers of a text; `1万2000` is one, and so is a price with raised cents."""
    before: _Number | None = None
    for number in _single_numbers(text, locale):
        if before is not None and _continues(before, number, text):
            readings = {mark: before.readings[mark] + number.readings[mark] for mark in before.readings}
            before = msgspec.structs.replace(
                before,
                text=text[before.end - 1 : before.end].join((before.text, number.text)),
                readings=readings,
                currency=before.currency or number.currency,
                end=number.end,
                scale=number.scale,
            )
            continue
        if before is not None:
            yield before
        before = number
    if before is not None:
        yield before


def _continues(number: _Number, behind: _Number, text: str) -> bool:
    """Whether a number continues the one before it, as in `1億2000万`."""
    between = text[number.end : behind.end].partition(behind.text)[0]
    return (
        text[number.end - 1] in EASTERN
        and between in ("", " ")
        and number.scale is not None
        and behind.scale is not None
        and number.readings.keys() <= behind.readings.keys()
        and all(0 <= value < number.scale for value in behind.readings.values())
    )


def _single_numbers(text: str, locale: Locale | None) -> Iterator[_Number]:
    atoms = [match.span() for match in _ATOM.finditer(text)]
    while atoms:
        # A plain space separates groups, too, where it cannot separate two numbers.
        count = next(
            (n for n in range(len(atoms), 1, -1) if _is_one(text, atoms[0][0], atoms[n - 1][1], locale)),
            1,
        )
        start, end = atoms[0][0], atoms[count - 1][1]
        del atoms[:count]
        cents = _with_cents(text, start, end, atoms[0], locale) if atoms else None
        if cents is not None:
            del atoms[:1]
        yield cents or _number(text, start, end, locale)


def _with_cents(text: str, start: int, end: int, behind: tuple[int, int], locale: Locale | None) -> _Number | None:
    """Return a price with raised cents, or with cents behind its sign as in `19€99`; None if it is none."""
    digits, between = text[slice(*behind)], text[end : behind[0]]
    whole = [value for value in _readings(text[start:end]).values() if value == value.to_integral_value()]
    if not whole or not re.fullmatch(r"\d\d", digits):
        return None
    symbol = between.strip(f" \n{RAISED}")
    if symbol and (find_symbol(symbol, locale) != symbol or find_symbol(text[:start], locale) is not None):
        return None
    if RAISED not in between:
        # `5€10€` are two prices.
        joined = symbol and symbol == between and find_currency(text[behind[1] :], 0, 0, locale) is None
    else:
        joined = re.fullmatch(rf"\s?{re.escape(symbol)}\s?{RAISED}", between) is not None
    currency = find_currency(text, start, end, locale) or find_currency(text, start, behind[1], locale)
    if not joined or currency is None:
        return None
    number = _number(text, start, end, locale)
    value = whole[0] + Decimal(digits) / 100
    return msgspec.structs.replace(
        number,
        text=number.text + digits.translate(_SUPERSCRIPTS),
        readings={".": -value if number.text.startswith("-") else value},
        currency=currency,
        end=behind[1],
        scale=Decimal(1),
    )


def _is_one(text: str, start: int, end: int, locale: Locale | None) -> bool:
    body = text[start:end]
    if not _SPACED.fullmatch(body):
        return False
    if body.count(" ") > 1:
        return True
    spaces = locale is not None and get_group_symbol(locale) in SPACES
    after_word = re.search(r"[^\W\d_] $", text[:start]) is not None
    priced = find_currency(text, start, end, locale) is not None
    if priced or re.search(r"[.,]", body):
        return spaces or (priced and not after_word)
    return spaces and not after_word


def _number(text: str, start: int, end: int, locale: Locale | None) -> _Number:
    body = text[start:end]
    priced = find_currency(text, start, end, locale) is not None
    word, scale = find_scale(text[end:], locale, priced=priced)
    mark, before = text[start - 1 : start], text[:start].rstrip(RAISED + APART)
    symbol = find_symbol(before, locale)
    signed = before if symbol is None else before.rstrip()[: -len(symbol)]
    # A dash behind anything but a currency belongs to a range or a list.
    minus = r"(?<![\w)])-$" if symbol is None else r"(?<![\w)])-$|(?:^|[:;,=(\[])\s*-\s+$"
    sign = -1 if re.search(minus, signed) else 1
    currency = find_currency(text, start, end + len(word), locale)
    # Accountants write debts in parentheses; in a longer text they are only parentheses.
    held = re.fullmatch(r"(\W?)\(.*\)", text.strip()) if len(_ATOM.findall(text)) == 1 else None
    if held is not None:
        currency = currency or find_currency(held[1], 1, 1, locale)
        sign = sign if currency is None else -1
    return _Number(
        text=("-" if sign < 0 else "") + body,
        readings={by: sign * value * (scale or 1) for by, value in _readings(body).items()},
        currency=currency,
        glued=(symbol is None and re.search(r"[^\W\d_]$", before) is not None)
        or (mark == RAISED and re.search(r"[^\s\d]$", before) is not None),
        end=end + len(word),
        scale=scale,
        apart=mark == APART,
        raised=mark == RAISED and re.search(r"\d\s?$", before) is not None,
    )


def _readings(body: str) -> dict[str, Decimal]:
    """Return decimal separator → value; empty if it is no number."""
    fraction = Decimal(0)
    if not body[-1].isdecimal():
        fraction, body = Decimal(str(unicodedata.numeric(body[-1]))), body[:-1].rstrip(SPACES + " \u2044")
    number, _, exponent = re.sub(f"[{SPACES} ]", " ", body or "0").lower().partition("e")
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
