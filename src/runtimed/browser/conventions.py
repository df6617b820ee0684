"""How languages write numbers: locales, currency symbols, and words for thousands and more."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from decimal import Decimal
from typing import Final

from babel import Locale, UnknownLocaleError

__all__ = ["EASTERN", "SPACES", "find_currency", "find_home", "find_locale", "find_scale", "find_symbol"]

SPACES: Final = "\u00a0\u202f\u2009\u2007"
"""Those that hold the groups of one number together."""
EASTERN: Final = {
    sign: Decimal(10) ** power
    for power, signs in ((2, "百백"), (3, "千천"), (4, "万萬만"), (8, "億亿억"), (12, "兆조"))
    for sign in signs
}
"""Signs of the east, which need no end of a word behind them and may be followed by what is smaller."""
_ABBREVIATED: Final = {
    word: Decimal(value)
    for value, words in (
        (12, "dozen Dutzend"),
        (100, "hundred"),
        (10**3, "tsd"),
        (10**5, "lakh lac"),
        (10**6, "mio mln"),
        (10**7, "crore"),
        (10**9, "bn bln mrd mld mlrd"),
    )
    for word in words.lower().split()
}
"""What the locales' compact patterns lack, in small letters, and means one thing everywhere."""
_OF_MONEY: Final = {"m": 6, "mm": 6, "mn": 6, "b": 9, "tn": 12, "trn": 12}
"""Letters that are millions and more (powers of ten) beside a currency, and units elsewhere."""
_BEFORE_MONEY: Final = {"t": 3, "k": 3, "m": 6, "mio": 6, "bn": 9, "mrd": 9}
"""What stands before the sign of a currency, as in `12 T€` (powers of ten)."""
_LANGUAGES: Final = ("de", "es", "fr", "it", "nl", "pl", "pt", "ru", "sv")
"""Whose words for thousands and more are known to be such on a page in another language."""
_UNKNOWN: Final = "XXX"
"""ISO 4217's code of no currency, for a sign that no language knows."""


@functools.lru_cache(maxsize=64)
def find_locale(tag: str | None) -> Locale | None:
    """Return the conventions of a language as HTML names it, or those of a wider one; None if no such is known."""
    tag = (tag or "").replace("_", "-")
    while tag:
        try:
            return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            tag = tag.rpartition("-")[0]
    return None


@functools.lru_cache(maxsize=64)
def find_home(currency: str) -> Locale | None:
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
        home = find_home(code)
        if home is not None:
            signs.append((str(home.currency_symbols.get(code, code)), code))
    found = {code: code for code in codes}
    for sign, code in signs:
        if len(sign) > 1 or not sign.isalpha():
            found.setdefault(sign, code)
    return tuple(sorted(found.items(), key=lambda one: -len(one[0])))


def find_symbol(text: str, locale: Locale | None) -> str | None:
    """Return the sign of a currency at the end of a text."""
    text = text[-12:].rstrip()
    for sign, _ in _symbols(locale):
        if text.endswith(sign) and not (sign[0].isalpha() and text[: -len(sign)][-1:].isalpha()):
            return sign
    return text[-1] if text and unicodedata.category(text[-1]) == "Sc" else None


def find_currency(text: str, start: int, end: int, locale: Locale | None) -> str | None:
    """Return the code of the currency that stands beside a number."""
    symbols = dict(_symbols(locale))
    before = find_symbol(text[:start], locale)
    # In `19,99 € 12 left` the sign belongs to the first number.
    if before is not None and not re.search(rf"\d\s?{re.escape(before)}\s+$", text[:start]):
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


@functools.lru_cache(maxsize=1)
def _foreign_scales() -> frozenset[str]:
    words = {word.strip().lower() for tag in _LANGUAGES for word, _ in _scales(Locale(tag))}
    return frozenset(word for word in words if len(word) > 2)


def find_scale(rest: str, locale: Locale | None, *, priced: bool) -> tuple[str, Decimal | None]:
    """Return the word for a scale behind a number, and what it stands for; None if that is not known."""
    rest = _space(rest[:32])
    if rest[:1] in EASTERN:
        return rest[0], EASTERN[rest[0]]
    known = _scales(locale)
    for word, scale in known:
        if rest.startswith(word) and not re.match(r"\w", rest[len(word) :]):
            return word, scale
    if locale is not None and locale.language == "zh" and re.match(r"[wW](?!\w)", rest):
        return rest[0], EASTERN["万"]
    match = re.match(r" ?(T|k|K|M|m|Mio|Mrd|bn)(?=[€$£¥]|(?:EUR|USD|CHF|GBP)\b)", rest)
    if match is not None:
        return match[0], Decimal(10) ** _BEFORE_MONEY[match[1].lower()]
    match = re.match(r" ?([^\W\d_]+)\.?", rest)
    if match is None or re.match(r"\w", rest[match.end(1) :]):
        return "", Decimal(1)
    word = match[1].lower()
    forms = (word, word.removesuffix("s"), match[0].strip().lower())
    if priced and word in _OF_MONEY:
        return match[0], Decimal(10) ** _OF_MONEY[word]
    if priced and match[1] in dict(known):
        return match[0], dict(known)[match[1]]
    # With the point of those that have one: `6 Bio-Eier` are no billions.
    spelled = {name.strip().lower(): scale for name, scale in known if len(name.strip()) > 2}
    for form in forms:
        if form in spelled or form in _ABBREVIATED:
            return match[0], spelled.get(form) or _ABBREVIATED[form]
    # `1.2 M views` are millions, `10 M` may be a size.
    unknown = match[1] == "M" or any(form in _foreign_scales() for form in forms)
    return (match[0], None) if unknown else ("", Decimal(1))


def _space(text: str) -> str:
    return re.sub(f"[{SPACES}]", " ", text)
