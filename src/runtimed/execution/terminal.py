"""Renders the text of a stream as a terminal does: carriage returns, backspaces and colours. Nothing here waits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

from runtimed.models import Output

__all__ = ["TerminalText"]


class TerminalText:
    """The text of one stream output, with `\\r` and backspace applied.

    Text without them is kept in the pieces that arrived, and joined when it is read. A line with one of them becomes a
    `_Line` until its end.
    """

    __slots__ = ("_done", "_escapes", "_line", "_output", "_pen", "_return", "_scanned", "_tail", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._done: list[str] = []  # whole lines, each piece ending with a newline
        self._tail: list[str] = []  # the current line, while it is plain
        self._line: _Line | None = None  # the current line, once it is not plain; `_tail` is empty then
        self._return = False  # the text so far ended with `\r`, which may be the first half of `\r\n`
        self._escapes = False
        self._pen: _Pen = ()  # the colours in force after the first `_scanned` pieces of `_done`
        self._scanned = 0
        self._output: Output | None = None

    def add(self, text: str) -> None:
        """Take the next piece of the stream."""
        self._output = None
        self._escapes = self._escapes or "\x1b" in text
        if self._return:
            text, self._return = "\r" + text, False
        if "\r" in text:
            text = text.replace("\r\n", "\n")  # ends the line, wherever the cursor is
            if text[-1] == "\r":
                text, self._return = text[:-1], True
        if self._line is None and "\r" not in text and "\b" not in text:  # the common case
            self._add_plain(text)
            return
        position, end = 0, len(text)
        while position < end:
            if self._line is None:
                control = _CONTROL.search(text, position)
                if control is None:
                    self._add_plain(text[position:])
                    return
                cut = text.rfind("\n", position, control.start()) + 1
                if cut:
                    self._add_plain(text[position:cut])
                    position = cut
                self._line = _Line(self._pen_here())
                self._line.add("".join(self._tail))
                self._tail.clear()
            newline = text.find("\n", position)
            stop = end if newline < 0 else newline
            self._line.add(text[position:stop])
            if newline >= 0:
                self._done.append(self._line.ended() + "\n")
                self._line = None
            position = stop + 1

    def output(self) -> Output:
        """Return the text so far; the same object until more is added."""
        if self._output is None:
            self._pen_here()
            self._done, self._scanned = ["".join(self._done)], 1
            tail = self._line.text() if self._line is not None else "".join(self._tail)
            self._output = Output(output_type="stream", name=self.name, text=self._done[0] + tail)
        return self._output

    def _add_plain(self, text: str) -> None:
        cut = text.rfind("\n") + 1
        if cut:
            self._done.extend(self._tail)
            self._done.append(text[:cut])
            self._tail.clear()
        if cut < len(text):
            self._tail.append(text[cut:])

    def _pen_here(self) -> _Pen:
        """Return the colours in force where the current line begins; each piece is scanned once."""
        if self._escapes:
            fresh = "".join(self._done[self._scanned :])
            for match in _COLOUR.finditer(fresh):
                self._pen = _pen_after(self._pen, match[0])
            self._done[self._scanned :] = [fresh]
        self._scanned = len(self._done)
        return self._pen


class _Line:
    """One line of a terminal, with a cursor.

    A gap buffer: a list of runs left of the cursor, and a stack of runs right of it. Moving the cursor moves runs, not
    characters, so that long lines and many updates are cheap.
    Colours are properties of characters, as on a terminal: text that overwrites other text has the colours then in
    force. Other escape sequences have no width; they stay in place until text is written over them.
    """

    __slots__ = ("_gap", "_held", "_left", "_pen", "_right", "_start_pen")

    def __init__(self, pen: _Pen) -> None:
        self._left: list[_Run] = []
        self._right: list[_Run] = []
        self._gap = 0  # empty columns left of the cursor, after an erasure
        self._held = ""  # an incomplete escape sequence
        self._start_pen = self._pen = pen

    def add(self, text: str) -> None:
        if self._held:
            text, self._held = self._held + text, ""
        position, end = 0, len(text)
        while position < end:
            match = _PLAIN.match(text, position)
            if match is not None:
                self._write(match[0])
                position = match.end()
                continue
            match text[position]:
                case "\r":
                    self._to_start()
                    position += 1
                case "\b":
                    start = position
                    while position < end and text[position] == "\b":
                        position += 1
                    self._back(position - start)
                case _:
                    if _BEGUN_ESCAPE.fullmatch(text, position):
                        self._held = text[position:]
                        return
                    escape = _ESCAPE.match(text, position)
                    sequence = escape[0] if escape is not None else "\x1b"
                    self._escape(sequence)
                    position += len(sequence)

    def ended(self) -> str:
        """Return the finished line; an incomplete escape sequence is text."""
        while self._held:
            begun, self._held = self._held, ""
            self._escape(begun[0])
            self.add(begun[1:])
        return self.text()

    def text(self) -> str:
        """Return the line's text with colours as escape sequences; at its end, the present colours are in force."""
        pieces: list[str] = []
        pen = self._start_pen
        held = [_Run.of(self._held, self._pen, visible=False)] if self._held else []
        for run in (*self._left, *held, *reversed(self._right)):
            if run.visible and run.pen != pen:
                pieces.append(_transition(pen, run.pen))
                pen = run.pen
            pieces.append(run.text[run.start : run.end])
        pieces.append(_transition(pen, self._pen))
        return "".join(pieces)

    def _write(self, text: str) -> None:
        if self._gap:
            self._left.append(_Run.of(" " * self._gap, ()))
            self._gap = 0
        self._left.append(_Run.of(text, self._pen))
        covered = len(text)
        while self._right and covered:
            run = self._right[-1]
            if not run.visible:
                self._right.pop()
            elif run.width <= covered:
                covered -= run.width
                self._right.pop()
            else:
                self._right[-1] = run._replace(start=run.start + covered)
                covered = 0

    def _escape(self, sequence: str) -> None:
        if sequence in _ERASE_TO_END:
            self._right.clear()
        elif sequence == _ERASE_LINE:
            self._gap += sum(run.width for run in self._left if run.visible)
            self._left.clear()
            self._right.clear()
        elif _COLOUR.fullmatch(sequence):
            self._pen = _pen_after(self._pen, sequence)
        else:
            while self._right and not self._right[-1].visible:
                self._right.pop()  # else 100,000 updates of one line would leave 100,000 sequences at its end
            self._left.append(_Run.of(sequence, self._pen, visible=False))

    def _to_start(self) -> None:
        self._gap = 0
        while self._left:
            self._right.append(self._left.pop())

    def _back(self, count: int) -> None:
        step = min(self._gap, count)
        self._gap -= step
        count -= step
        while count and self._left:
            run = self._left.pop()
            step = min(run.width, count) if run.visible else 0
            if run.visible and step < run.width:
                self._left.append(run._replace(end=run.end - step))
            self._right.append(run._replace(start=run.end - step) if run.visible else run)
            count -= step


class _Run(NamedTuple):
    """A piece of a line in one colour, `text[start:end]`. Moving its ends copies no text."""

    text: str
    start: int
    end: int
    pen: _Pen
    visible: bool

    @classmethod
    def of(cls, text: str, pen: _Pen, *, visible: bool = True) -> _Run:
        return cls(text, 0, len(text), pen, visible)

    @property
    def width(self) -> int:
        return self.end - self.start


_Pen = tuple[tuple[str, str], ...]
"""Colours and styles as (kind, SGR code) in the order in which they were set; empty for the terminal's own."""

_CONTROL: Final = re.compile(r"[\r\b]")
_PLAIN: Final = re.compile(r"[^\r\b\x1b]+")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]{0,128}m")
# ECMA-48 §5.4 (CSI), §5.6 (OSC: titles and links), two-character and charset escapes. Bounded, since an incomplete
# sequence is buffered until its end arrives.
_ESCAPE: Final = re.compile(
    r"\x1b(?:\[[0-?]{0,128}[ -/]{0,4}[@-~]|\][^\x07\x1b\r\b]{0,4096}(?:\x07|\x1b\\)|[ -/]{0,4}[0-Z\\^-~])"
)
_BEGUN_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]{0,128}[ -/]{0,4}|\][^\x07\x1b\r\b]{0,4096}\x1b?|[ -/]{0,4})")
_ERASE_TO_END: Final = ("\x1b[K", "\x1b[0K")
_ERASE_LINE: Final = "\x1b[2K"

# SGR codes that reset others (ECMA-48 §8.3.117): 22 resets 1 and 2, and so on; 39, 49 and 59 reset a colour.
_ENDS: Final[Mapping[str, tuple[str, ...]]] = {
    "22": ("1", "2"),
    "23": ("3",),
    "24": ("4",),
    "25": ("5",),
    "27": ("7",),
    "28": ("8",),
    "29": ("9",),
    "39": ("38",),
    "49": ("48",),
    "54": ("51",),
    "55": ("53",),
    "59": ("58",),
}
_KINDS: Final[Mapping[str, str]] = {
    **{str(code): "38" for code in (*range(30, 38), *range(90, 98))},
    **{str(code): "48" for code in (*range(40, 48), *range(100, 108))},
    "6": "5",
    "21": "4",
    "52": "51",
}


@lru_cache(maxsize=1024)
def _pen_after(pen: _Pen, sequence: str) -> _Pen:
    """Return the colours in force after an SGR sequence, `\\x1b[…m`."""
    kinds = dict(pen)
    codes = iter(sequence[2:-1].split(";"))
    for first in codes:
        code, number = first, first.partition(":")[0].lstrip("0")
        if not number:
            kinds.clear()
        elif number in _ENDS:
            for kind in _ENDS[number]:
                kinds.pop(kind, None)
        else:
            kind = _KINDS.get(number, number)
            if number in ("38", "48", "58") and ":" not in first:  # 5;n or 2;r;g;b follows
                mode = next(codes, "")
                code = ";".join([first, mode, *islice(codes, 3 if mode == "2" else 1)])
            kinds.pop(kind, None)
            kinds[kind] = code
    return tuple(kinds.items())


def _transition(old: _Pen, new: _Pen) -> str:
    """Return the shortest escape sequence that changes one pen into another."""
    if old == new:
        return ""
    if not new:
        return "\x1b[0m"
    kept = {kind for kind, _ in old} <= {kind for kind, _ in new}
    codes = [code for kind, code in new if (kind, code) not in old] if kept else ["0", *(code for _, code in new)]
    return f"\x1b[{';'.join(codes)}m" if codes else ""
