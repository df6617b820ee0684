"""Renders a Jupyter widget as text, and as HTML if its content is HTML. Nothing here waits or keeps state.

Source: the models of ipywidgets 8, https://github.com/jupyter-widgets/ipywidgets/blob/main/packages/schema
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from runtimed.models import Output

__all__ = ["BOXES", "KINDS", "Rendered", "join", "render_output", "render_value"]

BAR_WIDTH: Final = 20
"""Width of a progress bar, in characters."""

BOXES: Final = frozenset(
    {"AccordionModel", "BoxModel", "GridBoxModel", "HBoxModel", "StackModel", "TabModel", "VBoxModel"}
)
"""Model names of the container widgets, whose state has `children`."""

_BLOCKS: Final = " ▏▎▍▌▋▊▉█"
_IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
_LINE_ENDS: Final = re.compile(r"<(?:br|/p|/div|/tr|/li|/h\d)\b[^<>]{0,1000}>", re.IGNORECASE)
_TAG: Final = re.compile(r"</?[a-zA-Z!][^<>]{0,1000}>")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]{0,128}m")
_SPACES: Final = str.maketrans({"\u2007": " ", "\xa0": " ", "\u200b": None})


class Rendered(NamedTuple):
    """The rendering of a widget.

    Attributes:
        text: As text, for every client.
        html: As HTML, for clients that show it; None if it adds nothing to the text.
        bar: Whether it is a progress bar, which a row joins to the percentage before it.
    """

    text: str
    html: str | None = None
    bar: bool = False


def render_value(kind: str, state: Mapping[str, Any]) -> Rendered:
    """Render a widget without children.

    Args:
        kind: Its model name, one of `KINDS`.
        state: Its state; a missing or invalid value is shown as empty.
    """
    return KINDS[kind](state)


def join(kind: str, state: Mapping[str, Any], children: Sequence[Rendered | None]) -> Rendered:
    """Render a container widget.

    Args:
        kind: Its model name, one of `BOXES`.
        state: Its state.
        children: Its rendered children, in order; None for a hidden or unknown one.
    """
    if kind in ("AccordionModel", "StackModel", "TabModel"):
        return _one_of(kind, state, children)
    shown = [child for child in children if child is not None and (child.text or child.html)]
    in_a_row = kind == "HBoxModel" and not any("\n" in child.text for child in shown)
    text = _row(shown) if in_a_row else "\n".join(child.text for child in shown)
    if not any(child.html is not None for child in shown):
        return Rendered(text)
    style = ' style="display:flex;gap:0.5em"' if kind == "HBoxModel" else ""
    return Rendered(text, f"<div{style}>{''.join(map(_as_html, shown))}</div>")


def render_output(outputs: Sequence[Output], nested: Callable[[Output], Rendered | None]) -> Rendered:
    """Render an Output widget.

    Args:
        outputs: Its content.
        nested: Renders the widget that an output displays; returns None if it displays no known widget.
    """
    pieces = [nested(output) or _render(output) for output in outputs]
    lines = [piece.text if piece.text.endswith("\n") else f"{piece.text}\n" for piece in pieces if piece.text]
    text = "".join(lines).removesuffix("\n")
    if not any(piece.html is not None for piece in pieces):
        return Rendered(text)
    return Rendered(text, f"<div>{''.join(map(_as_html, pieces))}</div>")


def _render(output: Output) -> Rendered:
    text, data = str(output), output.data or {}
    if isinstance(data.get("text/html"), str):
        return Rendered(text, data["text/html"])
    if isinstance(data.get("image/svg+xml"), str):
        return Rendered(text, data["image/svg+xml"])
    for mime_type in _IMAGES:
        if isinstance(data.get(mime_type), bytes):
            encoded = base64.b64encode(data[mime_type]).decode("ascii")
            return Rendered(text, f'<img src="data:{mime_type};base64,{encoded}">')
    return Rendered(text)


def _as_html(rendered: Rendered) -> str:
    if rendered.html is not None:
        return rendered.html
    return f"<pre>{html.escape(_COLOUR.sub('', rendered.text))}</pre>" if rendered.text else ""


def _row(shown: Sequence[Rendered]) -> str:
    line, left = "", None
    for child in shown:
        # As tqdm does in a terminal: `73%|███   | 73/100`. Only a bar of its own keeps its numbers.
        text = child.text[: child.text.rindex("|") + 1] if child.bar and len(shown) > 1 else child.text.strip()
        glue = "" if left is None or (child.bar and left.endswith("%")) else " "
        line += glue + text
        left = text
    return line


def _one_of(kind: str, state: Mapping[str, Any], children: Sequence[Rendered | None]) -> Rendered:
    titles, selected = state.get("titles"), state.get("selected_index")
    names = titles if isinstance(titles, list) else []
    parts: list[Rendered] = []
    for index, child in enumerate(children):
        name = names[index] if index < len(names) and isinstance(names[index], str) else ""
        if name and kind != "StackModel":
            parts.append(Rendered(f"[{name}]" if index == selected else name))
        if index == selected and child is not None:
            parts.append(child)
    return join("VBoxModel", {}, parts)


# --- single widgets ---------------------------------------------------------------------------------------------------


def _named(state: Mapping[str, Any], text: str) -> Rendered:
    name = _plain(state.get("description"))
    return Rendered(f"{name}: {text}" if name and text else name or text)


def _bar(state: Mapping[str, Any]) -> Rendered:
    low, high, value = (_finite(state.get(key)) for key in ("min", "max", "value"))
    part = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0
    eighths = int(part * BAR_WIDTH * 8)
    bar = _BLOCKS[8] * (eighths // 8) + (_BLOCKS[eighths % 8] if eighths % 8 else "")
    name = _plain(state.get("description"))
    return Rendered(
        f"{f'{name} ' if name else ''}|{bar.ljust(BAR_WIDTH)}| {_number(value)}/{_number(high)}", None, bar=True
    )


def _markup(state: Mapping[str, Any]) -> Rendered:
    value = state.get("value")
    markup = value if isinstance(value, str) else ""
    rendered = _named(state, _plain(markup))
    if _TAG.search(markup) is None:
        return rendered
    name = _plain(state.get("description"))
    return Rendered(rendered.text, f"<div>{f'{html.escape(name)}: ' if name else ''}{markup}</div>")


def _label(state: Mapping[str, Any]) -> Rendered:
    value = state.get("value")
    return _named(state, value.translate(_SPACES) if isinstance(value, str) else "")


def _field(state: Mapping[str, Any]) -> Rendered:
    return _named(state, _value(state.get("value")))


def _password(state: Mapping[str, Any]) -> Rendered:
    value = state.get("value")
    return _named(state, "•" * min(len(value), 20) if isinstance(value, str) else "")


def _checkbox(state: Mapping[str, Any]) -> Rendered:
    return Rendered(f"[{'x' if state.get('value') is True else ' '}] {_plain(state.get('description'))}".rstrip())


def _button(state: Mapping[str, Any]) -> Rendered:
    pressed = " ✓" if state.get("value") is True else ""
    return Rendered(f"[{_plain(state.get('description'))}{pressed}]")


def _choice(state: Mapping[str, Any]) -> Rendered:
    labels, index = state.get("_options_labels"), state.get("index")
    names = labels if isinstance(labels, list) else []
    chosen = index if isinstance(index, list) else [index]
    picked = [str(names[at]) for at in chosen if isinstance(at, int) and 0 <= at < len(names)]
    return _named(state, ", ".join(picked))


KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Rendered]]] = {
    **dict.fromkeys(("FloatProgressModel", "IntProgressModel"), _bar),
    **dict.fromkeys(("HTMLMathModel", "HTMLModel"), _markup),
    **dict.fromkeys(("ButtonModel", "ToggleButtonModel"), _button),
    **dict.fromkeys(("CheckboxModel", "ValidModel"), _checkbox),
    "LabelModel": _label,
    "PasswordModel": _password,
    **dict.fromkeys(
        (
            "DropdownModel",
            "RadioButtonsModel",
            "SelectModel",
            "SelectMultipleModel",
            "SelectionRangeSliderModel",
            "SelectionSliderModel",
            "ToggleButtonsModel",
        ),
        _choice,
    ),
    **dict.fromkeys(
        (
            "BoundedFloatTextModel",
            "BoundedIntTextModel",
            "ColorPickerModel",
            "ComboboxModel",
            "DatePickerModel",
            "FloatLogSliderModel",
            "FloatRangeSliderModel",
            "FloatSliderModel",
            "FloatTextModel",
            "IntRangeSliderModel",
            "IntSliderModel",
            "IntTextModel",
            "PlayModel",
            "TagsInputModel",
            "TextModel",
            "TextareaModel",
        ),
        _field,
    ),
}
"""The renderers of widgets without children, by model name."""


def _plain(markup: object) -> str:
    """Return the plain text of a description or of an HTML widget's value."""
    if not isinstance(markup, str):
        return ""
    return html.unescape(_TAG.sub("", _LINE_ENDS.sub("\n", markup))).translate(_SPACES).strip()


def _value(value: object) -> str:
    match value:
        case bool() | None:
            return ""
        case int() | float():
            return _number(value)
        case str():
            return value
        case [int() | float() as low, int() | float() as high]:
            return f"{_number(low)} to {_number(high)}"
        case list():
            return ", ".join(str(item) for item in value)
        case {"year": int(year), "month": int(month), "date": int(day)}:
            return f"{year:04}-{month + 1:02}-{day:02}"
        case _:
            return ""


def _finite(value: object) -> float:
    return value if isinstance(value, int | float) and math.isfinite(value) else 0


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.0f}" if value.is_integer() else f"{value:g}"
