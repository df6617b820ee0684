"""Asks a frame what its snapshot leaves out: by which selectors its elements are found, and what people do with them.

A snapshot shows whatever Playwright's engine of roles finds, though some of it without a ref or a name: names and order
come from the page, and only what shares its name with an element without a ref is asked for with that engine. A path is
right by construction. What is told is true of the page at that moment.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

from runtimed.browser.additions import Added
from runtimed.browser.outline import INTERACTIVE, Known, Line, number_of, ref_in
from runtimed.browser.places import Placed, is_by_order

if TYPE_CHECKING:
    from playwright.async_api import Frame, Locator, Playwright

__all__ = [
    "Described",
    "Survey",
    "by_ref",
    "by_role",
    "changed_ref",
    "describe",
    "placed",
    "register",
    "survey",
    "with_text",
]

_ENGINE: Final = "runtimed"

_NAMED: Final = INTERACTIVE | {
    "alertdialog", "article", "banner", "complementary", "contentinfo", "dialog", "figure", "form", "grid", "group",
    "heading", "img", "main", "menu", "menubar", "navigation", "progressbar", "radiogroup", "region", "search", "table",
    "tablist", "tabpanel", "toolbar", "tree", "treegrid",
}  # fmt: skip
"""Roles that are rare on a page and have lasting names: these are distinguished by their names."""

_LONG_NAME: Final = 200
_LONG_TEXT: Final = 80
_MAX_QUERIES: Final = 40
"""Largest number of names and texts that are asked for separately."""
_MAX_VISITS: Final = 200_000
"""Largest number of elements that are visited for those: the whole page for each (0.5 s)."""
_MAX_PATHS: Final = 5_000
"""Number of elements up to which all elements of a frame get a path; above it only those that people operate."""
_LOOKS: Final = 0.02
"""Seconds between two checks for an element that is expected."""
_LOOKING: Final = 0.2
"""Time limit in seconds of a snapshot that waits for frames."""


class Survey(msgspec.Struct, frozen=True):
    """The answer of a frame.

    Attributes:
        known: What is known of its elements, by ref.
        unseen: Values of password fields that have no ref.
        added: Elements that people operate and these lines omit.
    """

    known: Mapping[str, Known]
    unseen: frozenset[str] = frozenset()
    added: Sequence[Added] = ()


class _Added(msgspec.Struct, frozen=True):
    number: int
    parent: int
    after: int
    first: int
    last: int
    text: str
    name: str
    path: str | None
    editable: bool


class Described(msgspec.Struct, frozen=True):
    """What an element is.

    Attributes:
        role: None if screen readers skip it.
        name: Its name, if it has a role.
        text: All of its text, if it has no role, and a short text.
        place: Its place, if that was asked for.
    """

    role: str | None
    name: str | None
    text: str | None
    place: Placed | None = None


class _Told(msgspec.Struct, frozen=True):
    """The answer of `survey.js`: elements by the numbers of their refs, 0 for one without.

    Attributes:
        outside: Whether there are elements that no snapshot shows.
    """

    notes: dict[str, list[int]]
    order: list[int]
    names: dict[int, str]
    paths: dict[int, str | None]
    acting: list[int]
    editable: list[int]
    passwords: list[int]
    unseen: list[str]
    added: list[_Added]
    place: Placed | None
    outside: bool


async def register(playwright: Playwright) -> None:
    """Register the engine with a connected driver, which passes it to the existing contexts."""
    script = resources.files("runtimed.browser").joinpath("survey.js").read_text(encoding="utf-8")
    await playwright.selectors.register(_ENGINE, script, content_script=True)


async def survey(
    frame: Frame,
    prefix: str,
    lines: Sequence[Line],
    *,
    within: float,
    size: int,
    whole: bool = True,
    document: str | None = None,
    owner: str | None = None,
    piece: str | None = None,
) -> Survey:
    """Ask a frame about elements of its latest snapshot.

    Args:
        frame: The frame.
        prefix: Its prefix in Playwright's refs.
        lines: What the snapshot shows of the frame; lines with a ref are asked about.
        within: Seconds.
        size: Number of the page's elements.
        whole: Whether these lines are all that the frame shows; else each name is asked for separately.
        document: The frame's document, to learn what the lines omit; None to learn only about them.
        owner: The ref of the frame's iframe.
        piece: The key of the piece that the snapshot showed; None if it showed everything.

    Raises:
        PlaywrightError: If the frame is gone or does not answer.
    """
    question = _Question(prefix, lines, size, whole=whole, document=document, owner=owner, piece=piece)
    if not question.wanted and document is None:
        return Survey({})
    answer = await frame.locator(question.selector()).text_content(timeout=within * 1000)
    return question.read(msgspec.json.decode(answer or "", type=_Told))


async def describe(found: Locator, within: float, *, place: bool) -> Described | None:
    """Return what an element is as soon as it exists; None if it does not say, or there are several.

    The questions are sent one turn of the event loop after the call.

    Args:
        found: The element.
        within: Seconds.
        place: Whether to ask for its place among its twins.
    """
    looking, telling = _look(found), asyncio.ensure_future(_tell(found, within, place=place))
    try:
        both: list[asyncio.Future[Any]] = [looking, telling]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if _failed(looking) and not telling.done():
            await asyncio.wait({telling}, timeout=_LOOKS)
        if _failed(looking) and not telling.done():  # an action that waits for it checks less often
            telling.cancel()
            while _failed(looking) and not await found.count():
                await asyncio.sleep(_LOOKS)
                looking = _look(found)
                await asyncio.wait({looking}, timeout=_LOOKING)
            if _failed(looking):
                looking = _look(found)
                await asyncio.sleep(0)
            telling = asyncio.ensure_future(_tell(found, within, place=place))
        return msgspec.json.decode(await telling or "", type=Described)
    except PlaywrightError:  # it is gone, or not the only one
        return None
    finally:
        looking.cancel()  # it waits for frames in it, too
        telling.cancel()


def _look(found: Locator) -> asyncio.Future[str]:
    """Let Playwright determine role and name of an element; fails at once if it does not exist, or is large."""
    looking = asyncio.ensure_future(found.locator(f"{_ENGINE}=small").aria_snapshot(mode="ai"))
    looking.add_done_callback(lambda done: done.cancelled() or done.exception())
    return looking


async def placed(found: Locator, within: float) -> Placed | None:
    """Return the place of an element among its twins; None if the page does not say.

    Raises:
        PlaywrightError: If the element is gone, or not the only one.
    """
    return msgspec.json.decode(await _tell(found, within, place=True) or "", type=Described).place


async def _tell(found: Locator, within: float, *, place: bool) -> str | None:
    what = f"{_ENGINE}=tell{' place' if place else ''}"
    return await found.locator(what).text_content(timeout=within * 1000)


def _failed(asking: asyncio.Future[str]) -> bool:
    return asking.done() and not asking.cancelled() and asking.exception() is not None


async def changed_ref(frame: Frame, number: int, within: float) -> str | None:
    """Return Playwright's present ref of an element whose ref had that number; None if it is gone.

    Raises:
        PlaywrightError: If the frame is gone or does not answer.
    """
    return await frame.locator(f"{_ENGINE}=now {number}").text_content(timeout=within * 1000) or None


def by_ref(frame: Frame, ref: str) -> Locator:
    """Return the element of one of Playwright's refs, whatever part of the page its latest snapshot showed."""
    return frame.locator(f"{_ENGINE}=ref {ref}")


class _Question:
    def __init__(
        self,
        prefix: str,
        lines: Sequence[Line],
        size: int,
        *,
        whole: bool,
        document: str | None,
        owner: str | None,
        piece: str | None,
    ) -> None:
        self._prefix = prefix
        self._whole = whole
        self._document = document
        self._owner = owner
        self._piece = piece
        self.wanted = {number_of(line.ref): line for line in lines if line.ref is not None}
        self._roles = {line.role for line in self.wanted.values() if line.role in _NAMED}
        self._without = {(line.role, line.name) for line in lines if line.ref is None}
        # Each takes a walk through the whole page, which a piece avoids.
        most = max(1, min(_MAX_QUERIES, _MAX_VISITS // max(size, 1))) if piece is None else 0
        pairs = dict.fromkeys(
            (line.role, line.name)
            for line in self.wanted.values()
            if line.role in _NAMED
            and 0 < len(line.name) <= _LONG_NAME
            and not (whole and (line.role, line.name) not in self._without)
        )
        self._named = list(pairs)[:most]
        texts = dict.fromkeys(
            text
            for line in self.wanted.values()
            if line.role == "generic" and line.pointer and 0 < len(text := line.plain_value) <= _LONG_TEXT
        )
        self._texts = list(texts)[:most]

    def selector(self) -> str:
        """Return the selector that asks."""
        every = len(self.wanted) <= _MAX_PATHS
        pathed = [
            number
            for number, line in self.wanted.items()
            if every or line.role in INTERACTIVE or line.role == "iframe" or line.pointer
        ]
        parts = [
            f"{by_role(role, name)} >> {_ENGINE}=note name {place}" for place, (role, name) in enumerate(self._named)
        ]
        parts += [f"{_by_text(text)} >> {_ENGINE}=note text {place}" for place, text in enumerate(self._texts)]
        what = "these" if self._document is None else self._piece or "all"
        parts.append(f"{_ENGINE}=end {_ranges(pathed)} {','.join(sorted(self._roles))} {what}")
        begin = f"{_ENGINE}=begin {self._prefix}:{_ranges(self.wanted)}"
        return " >> ".join([begin, *(f"internal:or={json.dumps(part, ensure_ascii=False)}" for part in parts)])

    def read(self, told: _Told) -> Survey:
        """Decode the answer."""
        names = {number: told.names.get(number, line.name) for number, line in self.wanted.items()}
        groups: dict[tuple[str, str], list[int]] = {}
        if self._whole and not told.outside:
            for number in told.order:
                pair = (self.wanted[number].role, names[number])
                if pair not in self._without:
                    groups.setdefault(pair, []).append(number)
        for place, pair in enumerate(self._named):
            groups[pair] = told.notes.get(f"name {place}", [])
        texts = {text: told.notes.get(f"text {place}", []) for place, text in enumerate(self._texts)}
        places = {key: {number: place for place, number in enumerate(found)} for key, found in groups.items()}
        acting, editable, passwords = set(told.acting), set(told.editable), set(told.passwords)
        known = {}
        for number, line in self.wanted.items():
            path = told.paths.get(number)
            name = names[number]
            selector = path
            among = groups.get((line.role, name), [])
            at = places.get((line.role, name), {}).get(number)
            if at is not None and 0 < len(name) <= _LONG_NAME:
                role = by_role(line.role, name)
                if len(among) == 1:
                    selector = role
                elif path is None or not _is_id(path):
                    selector = f"{role} >> nth={at}"
            elif line.role == "generic" and texts.get(line.plain_value) == [number] and not _is_id(path or ""):
                selector = _by_text(line.plain_value)
            if line.ref is not None:
                known[line.ref] = Known(
                    selector,
                    name,
                    acting=number in acting,
                    password=number in passwords,
                    editable=number in editable,
                    place=told.place.noted() if told.place is not None and is_by_order(selector or "") else None,
                )
        added = []
        for one in told.added:
            ref, parent, after, first, last = map(self._ref, (one.number, one.parent, one.after, one.first, one.last))
            if ref is not None:
                known[ref] = Known(one.path, one.name, acting=True, editable=one.editable)
                added.append(Added(ref, self._owner, parent, after, first, last, one.text))
        return Survey(known, frozenset(told.unseen), added)

    def _ref(self, number: int) -> str | None:
        return ref_in(self._document, number) if number and self._document is not None else None


def by_role(role: str, name: str | None, *, part: bool = False) -> str:
    """Return the selector of all elements of a role with that name, or any.

    Args:
        role: The role.
        name: The name, or a part of it in any case.
        part: Whether it is a part.
    """
    if name is None:
        return f"role={role}"
    return f"role={role}[name*={_quoted(name)} i]" if part else f"role={role}[name={_quoted(name)}]"


def with_text(selector: str, text: str) -> str:
    """Return the selector of the matches of a selector whose whole text this is."""
    return f"{selector} >> internal:has-text={json.dumps(text, ensure_ascii=False)}s"


def _by_text(text: str) -> str:
    return f"text={_quoted(text)}"


def _quoted(text: str) -> str:
    """Quote a text for Playwright, which takes the character behind a backslash literally."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_id(path: str) -> bool:
    return path.removeprefix(":light(").startswith("#") and " " not in path


def _ranges(numbers: Iterable[int]) -> str:
    """Write numbers in short form: `1-500,505`."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
