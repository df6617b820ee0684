"""Writes Markdown (CommonMark with GitHub's tables and task lists) from the tree that `reading.js` makes of a page.

A node is a text or a list of its kind, its attributes and its children. Nothing here touches a browser.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

__all__ = ["Node", "write_markdown"]

Node = Any
"""A text, or `[kind, attributes, children]`."""

_BLOCKS: Final = frozenset(
    ("block", "heading", "list", "item", "quote", "pre", "table", "hr", "term", "definition", "comment")
)
_MARKS: Final = {"strong": "**", "em": "*", "del": "~~"}
_GAP: Final = "\x00"
"""A space that the page's style makes."""
_BREAK: Final = "\x01"
"""A line break."""
_SOFT_HYPHEN: Final = "\u00ad"
"""A possible word break."""
_BREAKS: Final = re.compile(rf"[ \t\r\n\f{_GAP}]*{_BREAK}[ \t\r\n\f{_GAP}{_BREAK}]*")
_PARAGRAPHS: Final = re.compile(rf"[ \t\r\n\f{_GAP}]*{_BREAK}(?:[ \t\r\n\f\u00a0{_GAP}]*{_BREAK})+[ \t\r\n\f{_GAP}]*")
"""Line breaks with an empty line between them."""
_SPACES: Final = re.compile(rf"[ \t\r\n\f{_GAP}]+")
_SPECIAL: Final = re.compile(
    r"\\(?=[!-/:-@\[-`{-~])|`|\*(?=\S)|(?<=\S)\*|(?<!\w)_(?=\S)|(?<=\S)_(?!\w)|~~|<(?=[A-Za-z/!])"
)
_SUPERSCRIPTS: Final = str.maketrans("0123456789+-=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿ")
_SUBSCRIPTS: Final = str.maketrans("0123456789+-=()", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎")


def write_markdown(tree: Node, *, links: bool, images: bool) -> str:
    """Return a page as Markdown, with one line end at its end.

    Args:
        tree: The page.
        links: Whether links keep their addresses.
        images: Whether pictures are part of it.
    """
    text = "\n\n".join(_Writer(links=links, images=images).blocks([tree]))
    return text.strip("\n") + "\n"


class _Writer:
    def __init__(self, *, links: bool, images: bool) -> None:
        self._links = links
        self._images = images

    # --- blocks ---

    def blocks(self, nodes: Iterable[Node]) -> list[str]:
        """Return the blocks of some nodes; inline content between two of them is a paragraph."""
        done: list[str] = []
        line: list[Node] = []
        term: str | None = None

        def end_line() -> None:
            if line:
                paragraphs = (_guarded(_tidied(text)) for text in _PARAGRAPHS.split(self._inline(line)))
                done.extend(text for text in paragraphs if text)
                line.clear()

        for node, items in _grouped(nodes):
            if not _is_block(node):
                line.append(node)
                continue
            end_line()
            if term is not None and node[0] not in ("term", "definition"):
                done.append(term)
                term = None
            match node[0]:
                case "term":
                    terms = [term, "\n".join(self.blocks(node[2]))]
                    term = ", ".join(filter(None, terms)) or None
                case "definition":
                    done += self._definition(term, node[2])
                    term = None
                case "item":
                    done += self._list(items)
                case "link":
                    done += self.blocks(_pushed(node[2], node[1]["href"]))
                case _:
                    done += self._block(node)
        end_line()
        if term is not None:
            done.append(term)
        return done

    def _block(self, node: Node) -> list[str]:
        kind, attributes, children = node
        match kind:
            case "heading":
                text = self._line(_without("strong", children)).replace("  \n", " ")
                return [f"{'#' * attributes['level']} {text}"] if text else []
            case "quote":
                inner = "\n\n".join(self.blocks(children))
                return ["\n".join(f"> {line}" if line else ">" for line in inner.split("\n"))] if inner else []
            case "pre":
                return _fenced(attributes["text"], attributes["language"])
            case "table":
                return self._table(children)
            case "math":
                return [f"$${children[0]}$$"]
            case "hr":
                return ["---"]
            case "comment":
                return [f"<!-- {attributes['text'].replace('--', '- -')} -->"]
            case _:
                return self.blocks(children)

    def _list(self, items: Sequence[Node]) -> list[str]:
        written, loose = [], False
        for item in items:
            blocks = self.blocks(item[2])
            if not blocks:
                continue
            marker = "- " if item[1]["number"] is None else f"{item[1]['number']}. "
            text = blocks[0]
            for before, block in itertools.pairwise(blocks):
                tight = _is_list(block) and not _is_list(before)
                loose = loose or not tight
                text += ("\n" if tight else "\n\n") + block
            written.append(marker + re.sub(r"\n(?=[^\n])", "\n" + " " * len(marker), text))
        return [("\n\n" if loose else "\n").join(written)] if written else []

    def _definition(self, term: str | None, children: list[Node]) -> list[str]:
        blocks = self.blocks(children)
        if term is None:
            return blocks
        marked = re.search(r"[*`\[]", term) is not None
        if len(blocks) == 1 and "\n" not in blocks[0] and "\n" not in term:
            return [f"{term if marked else f'**{term}**'}: {blocks[0]}"]
        return [term, *blocks]

    def _table(self, rows: list[Node]) -> list[str]:
        """Write a table: cells over several rows are repeated, the rows of its head are joined into one."""
        heads = 0
        while heads < len(rows) and rows[heads][1]["head"]:
            heads += 1
        # A cell of the head may extend into rows that are head as well.
        grid: list[list[str]] = []
        reaching: dict[int, tuple[int, str]] = {}
        for number, row in enumerate(rows):
            line: list[str] = []
            cells = iter(row[2])
            while True:
                if len(line) in reaching:
                    left, text = reaching.pop(len(line))
                    if left > 1:
                        reaching[len(line)] = (left - 1, text)
                    line.append(text)
                    continue
                cell = next(cells, None)
                if cell is None:
                    break
                text = self._cell(cell[2])
                for place in range(min(max(1, cell[1]["across"]), 1000)):
                    shown = text if place == 0 or number < heads else ""
                    if cell[1]["down"] > 1:
                        reaching[len(line)] = (min(cell[1]["down"], len(rows) - number) - 1, shown)
                        if reaching[len(line)][0] < 1:
                            del reaching[len(line)]
                    line.append(shown)
            grid.append(line)
        grid = [line for line in grid if any(line)] if len(grid) > 1 else grid
        width = max((len(line) for line in grid), default=0)
        if not width or not any(any(line) for line in grid):
            return []
        grid = [line + [""] * (width - len(line)) for line in grid]
        heads = min(max(1, heads), len(grid))
        head = [" ".join(dict.fromkeys(filter(None, column))) for column in zip(*grid[:heads], strict=True)]
        lines = [head, ["---"] * width, *grid[heads:]]
        return ["\n".join(f"| {' | '.join(line)} |" for line in lines)]

    def _cell(self, nodes: list[Node]) -> str:
        parts = []
        for block in self.blocks(_flat_tables(nodes)):
            lines = [re.sub(r"^(\s*)- ", r"\1", line).strip() for line in block.split("\n")]
            parts += [line for line in lines if line and not line.startswith("```")]
        return re.sub(r"(?<!\\)\|", r"\\|", "<br>".join(parts))

    # --- what is inline ---

    def _line(self, nodes: Iterable[Node]) -> str:
        return _tidied(self._inline(nodes))

    def _inline(self, nodes: Iterable[Node]) -> str:
        return "".join(self._one(node) for node in _merged(nodes))

    def _one(self, node: Node) -> str:
        if isinstance(node, str):
            return _escaped(node)
        kind, attributes, children = node
        match kind:
            case "br":
                return _BREAK
            case "gap":
                return f"{_GAP}{self._inline(children)}{_GAP}"
            case "strong" | "em" | "del":
                text = self._inline(_without(kind, children))
                ends = [*_PARAGRAPHS.findall(text), ""]
                # No emphasis spans two paragraphs.
                return "".join(
                    _around(_MARKS[kind], one) + end for one, end in zip(_PARAGRAPHS.split(text), ends, strict=True)
                )
            case "code":
                return _code(attributes["text"])
            case "link":
                return self._link(attributes["href"], children)
            case "img":
                if not self._images or not attributes["src"]:
                    return ""
                return f"![{_escaped(attributes['alt'])}]({_address(attributes['src'])})"
            case "check":
                return f"{_GAP}[{'x' if attributes['on'] else ' '}]{_GAP}".replace("[ ]", "[\u00a0]")
            case "sup" | "sub":
                return self._raised(kind, children)
            case "q":
                return f"“{self._inline(children).strip()}”"
            case "rt":
                return f"({self._inline(children).strip()})"
            case "math":
                return f"${children[0]}$"
            case "pre":
                return _code(" ".join(attributes["text"].split()))
            case "hr" | "table" | "comment":
                return _GAP
            case _ if kind in _BLOCKS:
                return f"{_GAP}{self._inline(children)}{_GAP}"
            case _:
                return self._inline(children)

    def _link(self, href: str, children: list[Node]) -> str:
        text = _PARAGRAPHS.sub(_BREAK, self._inline(children))
        if not text.strip(f" \t\r\n\f{_GAP}{_BREAK}"):
            text = next((_escaped(image[1]["alt"]) for image in _images(children) if image[1]["alt"]), "")
        if not self._links or not text:
            return text
        return _around("", text, "[", f"]({_address(href)})")

    def _raised(self, kind: str, children: list[Node]) -> str:
        text = self._inline(children)
        plain = text.strip()
        table = _SUPERSCRIPTS if kind == "sup" else _SUBSCRIPTS
        if plain and all(ord(char) in table for char in plain):
            return plain.translate(table)
        if kind == "sup" and len(plain) > 2 and not any(not isinstance(one, str) for one in children):
            return f"^{plain}"
        return text


# --- the tree ---


def _is_block(node: Node) -> bool:
    if isinstance(node, str):
        return False
    if node[0] == "math":
        return bool(node[1]["block"])
    if node[0] in _BLOCKS:
        return True
    # Inline content may contain blocks, such as a link around a card.
    return node[0] in ("link", "gap", "inline", "strong", "em", "del") and any(_is_block(child) for child in node[2])


def _grouped(nodes: Iterable[Node]) -> Iterator[tuple[Node, list[Node]]]:
    """Give each node, and with the first item of a list all its successors: they form one list."""
    items: list[Node] = []
    for node in nodes:
        if isinstance(node, str) or node[0] != "item":
            if isinstance(node, str) and not node.strip() and items:
                continue
            if items:
                yield items[0], items
                items = []
            yield node, []
        else:
            items.append(node)
    if items:
        yield items[0], items


def _pushed(nodes: list[Node], href: str) -> list[Node]:
    """Return the blocks of a link, with the address at their heading or at the first block with text."""
    for wanted in ("heading", None):
        pushed = _push(nodes, href, wanted)
        if pushed is not None:
            return pushed
    return nodes


def _push(nodes: list[Node], href: str, wanted: str | None) -> list[Node] | None:
    for place, node in enumerate(nodes):
        if wanted is None and not _is_block(node):
            end = next((n for n in range(place, len(nodes)) if _is_block(nodes[n])), len(nodes))
            if _says(nodes[place:end]):
                return [*nodes[:place], ["link", {"href": href}, nodes[place:end]], *nodes[end:]]
        elif not isinstance(node, str) and _is_block(node):
            if node[0] == wanted:
                return [*nodes[:place], [node[0], node[1], [["link", {"href": href}, node[2]]]], *nodes[place + 1 :]]
            inner = _push(node[2], href, wanted) if node[0] not in ("pre", "table") else None
            if inner is not None:
                return [*nodes[:place], [node[0], node[1], inner], *nodes[place + 1 :]]
    return None


def _says(nodes: Iterable[Node]) -> bool:
    return any(node.strip() if isinstance(node, str) else node[0] == "code" or _says(node[2]) for node in nodes)


def _merged(nodes: Iterable[Node]) -> Iterator[Node]:
    """Join neighbours with the same emphasis: their marks would meet."""
    before: Node = ""
    for node in nodes:
        if not isinstance(node, str) and not isinstance(before, str) and node[0] == before[0] and node[0] in _MARKS:
            before = [node[0], node[1], [*before[2], *node[2]]]
            continue
        yield before
        before = node
    yield before


def _without(kind: str, nodes: Iterable[Node]) -> list[Node]:
    """Return nodes without an emphasis that their parent has already."""
    return [
        node if isinstance(node, str) else ["inline" if node[0] == kind else node[0], node[1], _without(kind, node[2])]
        for node in nodes
    ]


def _images(nodes: Iterable[Node]) -> list[Node]:
    found = []
    for node in nodes:
        if not isinstance(node, str):
            found += [node] if node[0] == "img" else _images(node[2])
    return found


def _flat_tables(nodes: Iterable[Node]) -> list[Node]:
    """Return the content of a cell with its tables as lines, as Markdown has none in a cell."""
    flat: list[Node] = []
    for node in nodes:
        if isinstance(node, str):
            flat.append(node)
        elif node[0] == "table":
            flat += [["block", 0, [["gap", 0, cell[2]] for cell in row[2]]] for row in node[2]]
        else:
            flat.append([node[0], node[1], _flat_tables(node[2])])
    return flat


# --- texts ---


def _tidied(text: str) -> str:
    """Return a line with whitespace collapsed: one space or line break for several."""
    text = _BREAKS.sub(_BREAK, text)
    return _SPACES.sub(" ", text).strip(f" {_BREAK}\u00a0\u200b").replace(_BREAK, "  \n")


def _escaped(text: str) -> str:
    """Escape the characters that Markdown would interpret."""
    text = text.replace(_GAP, "").replace(_BREAK, "").replace(_SOFT_HYPHEN, "")
    return _SPECIAL.sub(r"\\\g<0>", text).replace("](", "]\\(")


def _guarded(text: str) -> str:
    """Keep a paragraph from beginning like another block."""
    text = re.sub(r"^(#{1,6} |>|[-+*] |-{3,}$|={3,}$)", r"\\\1", text)
    text = re.sub(r"^(\d{1,9})([.)] )", r"\1\\\2", text)
    return text.replace("[\u00a0]", "[ ]")


def _around(mark: str, text: str, before: str | None = None, after: str | None = None) -> str:
    """Put marks around a text; whitespace at its ends stays outside."""
    match = re.fullmatch(rf"([\s{_GAP}{_BREAK}]*)(.*?)([\s{_GAP}{_BREAK}]*)", text, re.DOTALL)
    if match is None or not match[2]:
        return text
    return f"{match[1]}{mark if before is None else before}{match[2]}{mark if after is None else after}{match[3]}"


def _code(text: str) -> str:
    ticks = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _fenced(text: str, language: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\u00a0", " ").split("\n")]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    if not lines:
        return []
    fence = "`" * max(3, max((len(run) for line in lines for run in re.findall("`+", line)), default=0) + 1)
    return ["\n".join((fence + language, *lines, fence))]


def _address(href: str) -> str:
    return re.sub(r"[\s()<>]", lambda found: f"%{ord(found[0]):02X}", href)


def _is_list(block: str) -> bool:
    return re.match(r"- |\d+\. ", block) is not None
