"""Translates the names of keys that people write into those of KeyboardEvent.key. Nothing here waits."""

from __future__ import annotations

import difflib
from typing import Final

from runtimed.browser.doing import Refused

__all__ = ["key_of"]

_KEYS: Final = (
    *["Escape", "Enter", "Tab", "Backspace", "Delete", "Insert", "Home", "End", "PageUp", "PageDown", "Space"],
    *["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"],
    *(f"F{number}" for number in range(1, 13)),
    *["CapsLock", "NumLock", "ScrollLock", "Pause", "PrintScreen", "ContextMenu", "AltGraph"],
    *["AudioVolumeMute", "AudioVolumeDown", "AudioVolumeUp", "MediaTrackNext", "MediaTrackPrevious", "MediaPlayPause"],
    *["Shift", "Control", "Alt", "Meta", "ControlOrMeta"],
    *(f"{name}{side}" for name in ("Shift", "Control", "Alt", "Meta") for side in ("Left", "Right")),
    *["Backquote", "Minus", "Equal", "Backslash", "BracketLeft", "BracketRight", "Semicolon", "Quote"],
    *["Comma", "Period", "Slash"],
    *(f"Digit{digit}" for digit in range(10)),
    *(f"Key{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    *(f"Numpad{digit}" for digit in range(10)),
    *(f"Numpad{name}" for name in ["Divide", "Multiply", "Subtract", "Add", "Decimal", "Enter"]),
)
"""Keys and their codes. Source: W3C, UI Events KeyboardEvent key and code values; Playwright's US layout."""

_MEANT: Final = {
    **{name.lower(): name for name in _KEYS},
    **dict.fromkeys(("esc",), "Escape"),
    **dict.fromkeys(("return", "ret", "newline"), "Enter"),
    **dict.fromkeys(("del",), "Delete"),
    **dict.fromkeys(("ins",), "Insert"),
    **dict.fromkeys(("back", "bksp"), "Backspace"),
    **dict.fromkeys(("spacebar", " "), "Space"),
    **dict.fromkeys(("pgup", "page_up", "prior"), "PageUp"),
    **dict.fromkeys(("pgdn", "pgdown", "page_down"), "PageDown"),
    **{
        written: f"Arrow{where.title()}"
        for where in ("up", "down", "left", "right")
        for written in (where, f"{where}arrow", f"arrow_{where}")
    },
    **dict.fromkeys(("ctrl", "ctl"), "Control"),
    **dict.fromkeys(("cmd", "command", "win", "windows", "super"), "Meta"),
    **dict.fromkeys(("option", "opt"), "Alt"),
    **dict.fromkeys(("mod", "cmdorctrl", "commandorcontrol", "ctrlormeta", "ctrlorcmd"), "ControlOrMeta"),
    **dict.fromkeys(("plus",), "+"),
    **dict.fromkeys(("minus", "hyphen"), "-"),
    **dict.fromkeys(("menu", "apps"), "ContextMenu"),
}  # fmt: skip

_MODIFIERS: Final = frozenset({"Shift", "Control", "Alt", "Meta", "ControlOrMeta"})


def key_of(written: str) -> str:
    """Return Playwright's name of a key, or of a combination such as `Control+k`.

    Raises:
        Refused: If there is no such key.
    """
    *before, last = _parts(written)
    modifiers = [_one(part, written) for part in before]
    for part, modifier in zip(before, modifiers, strict=True):
        if modifier not in _MODIFIERS:
            raise Refused(
                f"{part!r} in {written!r} is no modifier; those are Alt, Control, Meta and Shift", error="Refused"
            )
    key = _one(last, written)
    if modifiers and len(key) == 1:
        # A keyboard gives the small letter for Ctrl+K, and the capital one with Shift.
        key = key.upper() if "Shift" in modifiers else key.lower()
    return "+".join([*modifiers, key])


def _parts(written: str) -> list[str]:
    text = written.strip() or written
    if len(text) < 2:
        return [text]
    joint = "+" if "+" in text else "-"
    if text.endswith(joint * 2):
        return [*(part.strip() for part in text[:-2].split(joint)), joint]
    return [part.strip() for part in text.split(joint)]


def _one(part: str, written: str) -> str:
    if part.isascii() and part.isprintable() and len(part) == 1:
        return "Space" if part == " " else part
    meant = _MEANT.get(part.lower())
    if meant is not None:
        return meant
    if not part:
        raise Refused(f"A key is missing in {written!r}", error="Refused")
    near = difflib.get_close_matches(part.lower(), list(_MEANT), n=1)
    hint = f"; did you mean {_MEANT[near[0]]!r}?" if near else "; type writes text"
    raise Refused(f"There is no key {part!r}{'' if part == written else f' in {written!r}'}{hint}", error="Refused")
