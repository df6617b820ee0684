"""Asks all frames of a page what its snapshot omits, and makes selectors reach into the frames."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from cachetools import FIFOCache
from playwright.async_api import Error as PlaywrightError

from runtimed.browser import outline
from runtimed.browser.additions import Added
from runtimed.browser.open_tab import OpenTab
from runtimed.browser.outline import Known, Line, document_of, number_of, ref_in
from runtimed.browser.survey import Survey, changed_ref, survey
from runtimed.browser.tabs import Tabs

if TYPE_CHECKING:
    from playwright.async_api import Frame

__all__ = ["Surveyed", "Surveyor"]

logger = logging.getLogger(__name__)

_LONGEST: Final = 300.0
"""Time limit of a frame in seconds; the caller has a limit of its own."""
_PATIENCE: Final = 10.0
"""Seconds within which a frame must say what became of an element."""
_MAX_OWNERS: Final = 4096
"""Number of documents whose iframes are remembered."""
_ENTER_FRAME: Final = " >> internal:control=enter-frame >> "


class Surveyed(msgspec.Struct, frozen=True):
    """The answers of a page's frames.

    Attributes:
        known: What is known of elements, by ref.
        unseen: Values of password fields without a ref.
        added: What the outline omits.
    """

    known: dict[str, Known]
    unseen: set[str]
    added: list[Added]


class Surveyor:
    """Asks frames.

    Args:
        tabs: The tabs.
    """

    def __init__(self, tabs: Tabs) -> None:
        self._tabs = tabs
        self._owners: FIFOCache[str, str | None] = FIFOCache(_MAX_OWNERS)  # None for the main frame's

    async def survey(
        self,
        tab: OpenTab,
        lines: Sequence[Line],
        prefixes: dict[str, str],
        size: int,
        main: str | None,
        piece: str | None,
    ) -> Surveyed:
        """Ask each frame about its elements.

        Args:
            tab: The tab.
            lines: Its outline.
            prefixes: Document → prefix of its frame.
            size: Number of the page's elements.
            main: The document of the main frame if the outline is one of the whole page.
            piece: The key of the piece that it is; None if it is none.
        """
        asked = []
        for part in outline.parts(lines):
            document = next(
                (document_of(line.ref) for line in part.lines if line.ref is not None),
                main if part.owner is None else None,
            )
            if document is not None:
                asked.append((part, document, prefixes[document]))
        told = await asyncio.gather(
            *(
                _ask(
                    tab.frame_of(prefix),
                    prefix,
                    part.lines,
                    size,
                    whole=main is not None and piece is None,
                    document=document,
                    owner=part.owner,
                    piece=piece if part.owner is None else None,
                )
                for part, document, prefix in asked
            )
        )
        known: dict[str, Known] = {}
        for (part, document, prefix), answer in zip(asked, told, strict=True):
            if part.owner is not None:
                self._owners[document] = part.owner
                owner = known[part.owner].selector
                entry = None if owner is None else owner + _ENTER_FRAME
            elif tab.frame_of(prefix) == tab.page.main_frame:
                self._owners[document] = None
                entry = ""
            else:
                entry = await self._entry(tab, document)
            known.update((ref, _entered(one, entry)) for ref, one in answer.known.items())
        unseen = {value for answer in told for value in answer.unseen}
        return Surveyed(known, unseen, [one for answer in told for one in answer.added])

    async def find_again(self, tab: OpenTab, line: Line) -> Known:
        """Ask for everything about one element, with a selector that reaches into its frame."""
        document = document_of(line.ref or "")
        where = self._tabs.locate(document)
        if where is None or line.ref is None:
            return Known()
        entry, told = await asyncio.gather(
            self._entry(tab, document), _ask(tab.frame_of(where[1]), where[1], [line], 0, whole=False)
        )
        return _entered(told.known[line.ref], entry)

    async def changed(self, tab: OpenTab, ref: str) -> str | None:
        """Return the ref that an element has after its role or name changed; None if it is gone."""
        document = document_of(ref)
        where = self._tabs.locate(document)
        if where is None or where[0] is not tab:
            return None
        try:
            own = await changed_ref(tab.frame_of(where[1]), number_of(ref), _PATIENCE)
        except PlaywrightError:  # its frame is gone
            return None
        return None if own is None else ref_in(document, number_of(own))

    async def _entry(self, tab: OpenTab, document: str) -> str | None:
        """Return the selector that reaches into the frame of a document; None if none does."""
        owner = self._owners.get(document)
        if owner is None:
            return "" if document in self._owners else None
        found = await self.find_again(tab, Line(0, "", "iframe", ref=owner))
        return None if found.selector is None else found.selector + _ENTER_FRAME


def _entered(known: Known, entry: str | None) -> Known:
    """Prefix the selector of an element with that of its frame."""
    if not entry and entry is not None:
        return known
    selector = None if known.selector is None or entry is None else entry + known.selector
    return msgspec.structs.replace(known, selector=selector)


async def _ask(
    frame: Frame,
    prefix: str,
    lines: Sequence[Line],
    size: int,
    *,
    whole: bool,
    document: str | None = None,
    owner: str | None = None,
    piece: str | None = None,
) -> Survey:
    """Ask a frame. Of one that does not answer nothing is known, so any of its fields may be a password's."""
    try:
        return await survey(
            frame,
            prefix,
            lines,
            within=_LONGEST,
            size=size,
            whole=whole,
            document=document,
            owner=owner,
            piece=piece,
        )
    except PlaywrightError as exc:
        if not frame.is_detached():
            logger.warning("the elements of a frame at %s are unknown: %s", frame.url, exc.message)
        known = {line.ref: Known(password=line.role == "textbox") for line in lines if line.ref is not None}
        return Survey(known, frozenset(line.plain_value for line in lines if line.role in {"textbox", "text"}))
