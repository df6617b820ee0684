"""The roles by which elements are named. Nothing here waits."""

from __future__ import annotations

import difflib
from typing import Final

from runtimed.browser.doing import Refused

__all__ = ["role_of"]

_ROLES: Final = frozenset({
    "alert", "alertdialog", "application", "article", "banner", "blockquote", "button", "caption", "cell",
    "checkbox", "code", "columnheader", "combobox", "comment", "complementary", "contentinfo", "definition",
    "deletion", "dialog", "directory", "document", "emphasis", "feed", "figure", "form", "generic", "grid",
    "gridcell", "group", "heading", "image", "img", "insertion", "link", "list", "listbox", "listitem", "log",
    "main", "mark", "marquee", "math", "menu", "menubar", "menuitem", "menuitemcheckbox", "menuitemradio", "meter",
    "navigation", "none", "note", "option", "paragraph", "presentation", "progressbar", "radio", "radiogroup",
    "region", "row", "rowgroup", "rowheader", "scrollbar", "search", "searchbox", "sectionfooter", "sectionheader",
    "separator", "slider", "spinbutton", "status", "strong", "subscript", "suggestion", "superscript", "switch",
    "tab", "table", "tablist", "tabpanel", "term", "textbox", "time", "timer", "toolbar", "tooltip", "tree",
    "treegrid", "treeitem",
})  # fmt: skip
"""Source: WAI-ARIA 1.3, 5.4 "Definition of Roles"."""
_MODULES: Final = ("doc-", "graphics-")
"""Prefixes of the roles of ARIA's modules."""


def role_of(written: str) -> str:
    """Return a role in ARIA's spelling.

    Raises:
        Refused: If there is no such role.
    """
    role = written.strip().lower()
    if role in _ROLES or role.startswith(_MODULES):
        return role
    near = difflib.get_close_matches(role, sorted(_ROLES), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; observe() shows those of the page"
    raise Refused(f"There is no role {written!r}{hint}", error="Refused")
