"""Asks all frames of a page what its snapshot leaves out, and gets selectors into the frames."""

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
"""Seconds that a frame gets at most; who asks has a limit of its own."""
_PATIENCE: Final = 10.0
"""Seconds in which a frame must say what became of an element."""
_MAX_OWNERS: Final = 4096
"""Documents of which is remembered which iframe holds them."""
_ENTER_FRAME: Final = " >> internal:control=enter-frame >> "


class Surveyed(msgspec.Struct, frozen=True):
    """What the frames of a page told.

    Attributes:
        known: What there is to say of elements, by ref.
        unseen: Values of password fields without a ref.
        added: What the outline leaves out.
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
        self._owners: FIFOCache[str, str | None] = FIFOCache(_MAX_OWNERS)  # none for the main frame's

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
            prefixes: Those of the frames, by their documents.
            size: Elements of the page.
            main: The document of the main frame where the outline is one of the whole page.
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
        """Ask what there is to know of one element, with a selector that gets into its frame."""
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
        """Return with what a selector gets into the frame that shows a document; None if nothing does."""
        owner = self._owners.get(document)
        if owner is None:
            return "" if document in self._owners else None
        found = await self.find_again(tab, Line(0, "", "iframe", ref=owner))
        return None if found.selector is None else found.selector + _ENTER_FRAME


def _entered(known: Known, entry: str | None) -> Known:
    """Let the selector of an element begin where those of the page do."""
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
    """Ask a frame; of one that does not answer nothing is known, so that any field may be one for passwords."""
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
            logger.warning("a frame at %s does not tell of its elements: %s", frame.url, exc.message)
        known = {line.ref: Known(password=line.role == "textbox") for line in lines if line.ref is not None}
        return Survey(known, frozenset(line.plain_value for line in lines if line.role in {"textbox", "text"}))
