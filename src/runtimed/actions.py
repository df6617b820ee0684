"""The actions of a browser session, as frozen values. Nothing here talks to a browser.

`session.execute` takes one of these, a dict with its fields and its `type`, or `type=` with the fields:

    session.execute(Click(role="button", name="Save"))
    session.execute({"type": "click", "ref": "d2e5"})
    session.execute(type="fill", selector="#name", value="Ada")

An action names its element in one of three ways: by `ref` (from an observation; the key `id` means the same), by
`selector` (CSS, or any syntax of Playwright), or by `role` with `name` (as a screen reader says it). A name matches
any part of the element's, ignoring case, unless `exact` is set; among several elements, an exact match wins. Pointer
actions also take a point, `x` and `y` in CSS pixels from the upper left corner of the element, or of the viewport
without an element.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from runtimed.action_names import ELSEWHERE, METHODS
from runtimed.errors import InvalidAction
from runtimed.structs import prepare

__all__ = [
    "Action",
    "Check",
    "Clear",
    "Click",
    "CloseTab",
    "DownloadFile",
    "Drag",
    "DropFiles",
    "EvaluateJs",
    "Fill",
    "GoBack",
    "GoForward",
    "Goto",
    "HandleDialog",
    "Hover",
    "NewTab",
    "Place",
    "PressKey",
    "Reload",
    "Scroll",
    "Secret",
    "SelectOption",
    "SwitchTab",
    "Target",
    "Type",
    "UploadFile",
    "Wait",
    "WaitUntil",
    "masked",
    "masked_secrets",
    "parse_action",
    "parse_target",
    "recorded",
    "repeatable",
    "secrets_of",
]

if TYPE_CHECKING:
    _Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
else:  # the wire form: `parse_action` turns other paths into texts
    _Paths = str | tuple[str, ...]

_REF: Final = re.compile(r"d\d+e\d+")
_LONGEST: Final = 600.0
"""Longest timeout of an action, in seconds."""

WaitUntil = Literal["commit", "domcontentloaded", "load", "networkidle"]
Modifier = Literal["Alt", "Control", "ControlOrMeta", "Meta", "Shift"]


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text that is typed into the page and masked everywhere else: in the action log, observations and `repr`.

    Attributes:
        secret: The text.
        name: The name by which a replay asks for it.
    """

    secret: str
    name: str | None = None

    def __repr__(self) -> str:
        return "Secret('***')" if self.name is None else f"Secret('***', name={self.name!r})"

    __str__ = __repr__


class _Action(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="type"
):
    """The fields of all actions.

    Attributes:
        timeout: Longest duration in seconds, up to 600; None for 30 (navigation, waiting, downloads) or 10 (others).
            With None, an action on a disabled, inert or covered element fails after one second.
    """

    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout <= _LONGEST:
            raise ValueError(
                f"timeout is in seconds, not milliseconds: above 0 and at most {_LONGEST:g}, not {self.timeout:g}"
            )


class Place(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Distinguishes an element from others of its role and name, for the action log.

    Attributes:
        count: Number of elements with the same `near` and `text`, this one included.
        near: Name or heading of the section of the page that contains it; None if no other element has its role and
            name.
        text: Text of the largest part of the page that contains it but no other such element; None if `near` is enough.
    """

    count: int
    near: str | None = None
    text: str | None = None


class Target(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Names an element or a point: by `ref`, by `selector`, by `role` with `name`, or by `x` and `y`.

    Together with a selector, `role`, `name` and `place` are conditions: the action fails on any other element.
    """

    ref: str | None = None
    selector: str | None = None
    role: str | None = None
    name: str | None = None
    exact: bool = False
    place: Place | None = None
    x: float | None = None
    y: float | None = None

    def __post_init__(self) -> None:
        _check_target(self, required=not _names_point(self))


if TYPE_CHECKING:
    _Goal = Target | str
else:  # the wire form: `parse_action` turns texts into targets
    _Goal = Target


class _OnElement(_Action, frozen=True, kw_only=True):
    ref: str | None = None
    selector: str | None = None
    role: str | None = None
    name: str | None = None
    exact: bool = False
    place: Place | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_target(self, required=True)


class _OnElementOrPage(_OnElement, frozen=True):
    def __post_init__(self) -> None:
        _Action.__post_init__(self)
        _check_target(self, required=False)


class _OnPoint(_OnElement, frozen=True, kw_only=True):
    x: float | None = None
    y: float | None = None

    def __post_init__(self) -> None:
        _Action.__post_init__(self)
        _check_target(self, required=not _names_point(self))


class Goto(_Action, frozen=True, tag="goto"):
    """Open an address in the active tab; without a scheme it is `https://`, for loopback `http://`."""

    url: str
    wait_until: WaitUntil = "load"


class GoBack(_Action, frozen=True, tag="go_back"):
    """Go back one page of the active tab's history."""


class GoForward(_Action, frozen=True, tag="go_forward"):
    """Go forward one page of the active tab's history."""


class Reload(_Action, frozen=True, tag="reload"):
    """Load the active tab's page again."""


class NewTab(_Action, frozen=True, tag="new_tab"):
    """Open a tab, which becomes the active one. `data` is its id."""

    url: str | None = None


class SwitchTab(_Action, frozen=True, tag="switch_tab"):
    """Make a tab the active one."""

    tab: str


class CloseTab(_Action, frozen=True, tag="close_tab"):
    """Close a tab; without an id the active one."""

    tab: str | None = None


class Click(_OnPoint, frozen=True, tag="click"):
    """Click an element or a point."""

    button: Literal["left", "middle", "right"] = "left"
    count: int = 1
    modifiers: tuple[Modifier, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.count <= 10:
            raise ValueError(f"count is a number of clicks from 1 to 10, not {self.count}")


class Fill(_OnElement, frozen=True, tag="fill"):
    """Write into a field, and verify what it holds.

    The text is inserted at once, as by a paste, except its last character, which is typed, so that suggestions open and
    input masks apply. If the field does not accept that, the text is typed key by key.

    Attributes:
        value: The text, or a `Secret`. Dates, times and colours are in HTML's format: `2026-11-29`, `12:30`, `#ff0000`.
        clear: Whether it replaces the content of the field; otherwise it is appended.
        press_enter: Whether to press Enter afterwards.
    """

    value: str | Secret
    clear: bool = True
    press_enter: bool = False


class Type(_OnElementOrPage, frozen=True, tag="type"):
    """Type key by key at the end of a field, or into the focused element.

    Attributes:
        value: The text, or a `Secret`; a line break presses Enter.
        clear: Whether to empty the field before.
        press_enter: Whether to press Enter afterwards.
        delay: Seconds between two keys, at most 1.
    """

    value: str | Secret
    clear: bool = False
    press_enter: bool = False
    delay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.delay <= 1:
            raise ValueError(f"delay is a number of seconds from 0 to 1, not {self.delay:g}")
        if self.clear and self.ref is None and self.selector is None and self.role is None:
            raise ValueError("clear needs an element: give ref, selector, or role with name")


class Clear(_OnElement, frozen=True, tag="clear"):
    """Empty a field."""


class PressKey(_OnElementOrPage, frozen=True, tag="press_key"):
    """Press a key or a combination such as `Control+A`, in an element or in the focused one.

    Attributes:
        key: A name of KeyboardEvent.key, or a common one (`Esc`, `Return`, `ctrl+k`); case-insensitive.
    """

    key: str


class Check(_OnElement, frozen=True, tag="check"):
    """Set a checkbox, a radio button or a switch."""

    value: bool = True


class SelectOption(_OnElement, frozen=True, tag="select_option"):
    """Choose one or several options of a list, by value or by label."""

    value: str | tuple[str, ...]


class Hover(_OnPoint, frozen=True, tag="hover"):
    """Move the pointer over an element or a point."""


class Drag(_OnPoint, frozen=True, tag="drag"):
    """Drag from an element or a point onto another element.

    Attributes:
        to: The destination: a `Target`, or a text: a ref, else a selector.
    """

    to: _Goal


class _WithFiles(_OnElement, frozen=True, kw_only=True):
    path: _Paths

    @property
    def files(self) -> tuple[str, ...]:
        """The paths as texts."""
        paths: Any = (self.path,) if isinstance(self.path, str | os.PathLike) else self.path
        return tuple(map(os.fspath, paths))


class UploadFile(_WithFiles, frozen=True, tag="upload_file"):
    """Upload files or a folder of this machine through a file input, or an element that opens a file chooser.

    Attributes:
        path: One path or several, as text or `Path`; an empty list clears the input.
    """


class DropFiles(_WithFiles, frozen=True, tag="drop_files"):
    """Drop files and folders of this machine on an element, as a file manager does.

    Attributes:
        path: One path or several, as text or `Path`.
    """


class DownloadFile(_OnElementOrPage, frozen=True, tag="download_file"):
    """Click an element that starts a download, or save the tab's document, and wait for the file.

    `data` holds `path`, `suggested_filename`, `url` and `size` in bytes.
    """


class Scroll(_OnElementOrPage, frozen=True, tag="scroll"):
    """Scroll by pixels (positive: down); without an amount, to the element, or the page by one view."""

    amount: int | None = None


class Wait(_Action, frozen=True, tag="wait"):
    """Wait for one thing: a time, a text or an element to be visible in any frame, or gone, an address, or a state.

    Attributes:
        gone: A selector that no frame matches visibly any more, such as `.spinner` or `text=Loading`.
        url: A glob such as `**/done`.
    """

    seconds: float | None = None
    text: str | None = None
    selector: str | None = None
    gone: str | None = None
    url: str | None = None
    load_state: Literal["domcontentloaded", "load", "networkidle"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [self.seconds, self.text, self.selector, self.gone, self.url, self.load_state]
        if sum(one is not None for one in given) != 1:
            raise ValueError("wait needs exactly one of seconds, text, selector, gone, url and load_state")
        if self.seconds is not None and not 0 <= self.seconds <= 3600:
            raise ValueError(f"seconds is from 0 to 3600, not {self.seconds!r}")
        if self.seconds is not None and self.timeout is not None and self.timeout < self.seconds:
            raise ValueError(f"timeout must be at least seconds: {self.timeout:g} is less than {self.seconds:g}")


class EvaluateJs(_Action, frozen=True, tag="evaluate_js"):
    """Run code in the page: an expression, a function to call, or statements, with `return` and `await` where needed.

    `data` is the awaited value as JSON; elements, functions and symbols become text.
    """

    code: str


class HandleDialog(_Action, frozen=True, tag="handle_dialog"):
    """Answer the dialog (alert, confirm, prompt, beforeunload) that the active tab shows.

    Attributes:
        text: The answer to a prompt, as text or `Secret`.
    """

    accept: bool = True
    text: str | Secret | None = None


Action = (
    Goto
    | GoBack
    | GoForward
    | Reload
    | NewTab
    | SwitchTab
    | CloseTab
    | Click
    | Fill
    | Type
    | Clear
    | PressKey
    | Check
    | SelectOption
    | Hover
    | Drag
    | UploadFile
    | DropFiles
    | DownloadFile
    | Scroll
    | Wait
    | EvaluateJs
    | HandleDialog
)

_BY_TYPE: Final[dict[str, type[Any]]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        Goto, GoBack, GoForward, Reload, NewTab, SwitchTab, CloseTab, Click, Fill, Type, Clear,
        PressKey, Check, SelectOption, Hover, Drag, UploadFile, DropFiles, DownloadFile, Scroll, Wait, EvaluateJs,
        HandleDialog,
    )
}  # fmt: skip

prepare(*_BY_TYPE.values())


def parse_action(action: object = None, type: str | None = None, fields: Mapping[str, Any] | None = None) -> Action:  # noqa: A002  # the name that users write
    """Return the action in the arguments of `execute`.

    Args:
        action: An action, or a dict with a `type`; None if `type` names it.
        type: Its name, if it is not in `action`.
        fields: Its fields; `id` means `ref`.

    Raises:
        InvalidAction: If there is no such action, or a field is unknown, missing or invalid.
    """
    given = dict(fields or {})
    if isinstance(action, _Action):
        if type is not None or given:
            raise InvalidAction(
                f"execute takes an action or its fields, not both: {action!r} came with "
                f"{', '.join([*(['type'] if type is not None else []), *given])}"
            )
        # Constructors accept any value; converting checks them here, in the caller's process.
        plain: dict[str, Any] = msgspec.to_builtins(action, enc_hook=os.fspath)
        plain.pop("type")
        return _convert(action.__class__, plain)
    if isinstance(action, Mapping):
        given = {**action, **given}
    elif isinstance(action, str) and type is None:
        type = action  # noqa: A001  # see above
    elif action is not None:
        raise InvalidAction(
            f"An action is an object of runtimed.actions, a dict, or type= with fields; not {action.__class__.__name__}"
        )
    name = given.pop("type", None) if type is None else type
    if given.get("type", name) != name:
        raise InvalidAction(f"Two types were given for one action: {given['type']!r} and {name!r}")
    given.pop("type", None)
    kind = _BY_TYPE.get(name) if isinstance(name, str) else None
    if kind is None:
        if isinstance(name, str) and (method := METHODS.get(name)) is not None:
            raise InvalidAction(
                f"{name!r} is not an action: call the method session.{method.format(name)}() instead",
                nearest=None,
                name=name,
            )
        raise _unknown("action", name, _BY_TYPE)
    return _convert(kind, given)


def parse_target(target: object, of: str = "Target") -> Target:
    """Return the target in an argument.

    Args:
        target: A `Target`, a dict with its fields, or a text: a ref, else a selector.
        of: Name of the operation, for errors.

    Raises:
        InvalidAction: If it is not a target, or a field is unknown or invalid.
    """
    match target:
        case Target():
            given: dict[str, Any] = msgspec.to_builtins(target)
        case str():
            given = {"ref" if _REF.fullmatch(target) else "selector": target}
        case Mapping():
            given = {"ref" if name == "id" else name: value for name, value in target.items()}
        case _:
            raise InvalidAction(
                "An element is named by a ref, a selector, a Target, or a dict with the fields of one; not by "
                f"{target!r}"
            )
    for name in given:
        if name not in Target.__struct_fields__:
            raise _unknown("field of Target", name, Target.__struct_fields__)
    try:
        return msgspec.convert(given, Target)
    except msgspec.ValidationError as exc:
        raise InvalidAction(f"{of}: {_in_words(str(exc))}") from exc


def masked(action: Action) -> dict[str, Any]:
    """Return an action as plain values for the action log, with its secrets masked."""
    plain: dict[str, Any] = msgspec.to_builtins(action)
    for field, value in secrets_of(action).items():
        plain[field] = {"secret": "***", **({} if value.name is None else {"name": value.name})}
    return plain


def secrets_of(action: Action) -> dict[str, Secret]:
    """Return the secrets in an action, by field."""
    values = {field: getattr(action, field) for field in action.__struct_fields__}
    return {field: value for field, value in values.items() if isinstance(value, Secret)}


def masked_secrets(data: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the names of the masked secrets in a logged action, by field; None for a secret without a name.

    Args:
        data: The action as plain values; see `masked`.
    """
    return {
        field: value.get("name") for field, value in data.items() if isinstance(value, Mapping) and "secret" in value
    }


def repeatable(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a logged action in a form that can be repeated on another page, as plain values; secrets stay masked.

    A ref is only valid on the page of its time. So it is replaced by the recorded selector, role, name and place of the
    element, all of which must match.

    Args:
        data: The `data` of an entry of the action log.

    Raises:
        InvalidAction: If the entry has nothing by which the element can be found.
    """
    given = dict(data["action"])
    given.pop("timeout", None)  # it was meant for the page of its time
    if ":***@" in str(given.get("url")):
        raise InvalidAction(f"This {given['type']} needs a password in its address, which the action log does not keep")
    _find_again(given["type"], given, data.get("selector"), data.get("element"))
    if isinstance(given.get("to"), Mapping):
        given["to"] = dict(given["to"])
        _find_again(given["type"], given["to"], data.get("to_selector"), data.get("to_element"))
    return given


def _find_again(kind: str, given: dict[str, Any], selector: str | None, element: Mapping[str, Any] | None) -> None:
    """Make a target name exactly the recorded element."""
    if given.get("ref") is not None and selector is None:
        raise InvalidAction(f"The action log has no selector for the element of this {kind}")
    if given.get("ref") is not None or given.get("selector") is not None:
        given.pop("ref", None)
        given.update({"selector": selector or given["selector"], **(element or {})})
    elif given.get("role") is not None and element:
        given.update({**element, "exact": True})


def recorded(data: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> Action:
    """Return a logged action, to perform it again in another session.

    Args:
        data: The `data` of an entry of the action log.
        secrets: The texts of the masked secrets, by the name of their `Secret`.

    Raises:
        InvalidAction: If the entry has nothing by which the element can be found, or a secret is missing (attribute
            `secret`, its name).
    """
    given = repeatable(data)
    for field, name in masked_secrets(given).items():
        if name is None or name not in (secrets or {}):
            called = "a secret without a name" if name is None else f"the secret {name!r}"
            raise InvalidAction(f"This {given['type']} needs {called}, which the action log does not keep", secret=name)
        given[field] = Secret((secrets or {})[name], name)
    return parse_action(given)


def _convert(kind: type[Any], given: dict[str, Any]) -> Action:
    allowed = kind.__struct_fields__
    if "id" in given and "ref" in allowed:
        if given.get("ref") is not None:
            raise InvalidAction("id and ref mean the same; give one of them")
        given["ref"] = given.pop("id")
    tag = kind.__struct_config__.tag
    for name in given:
        if name not in allowed:
            raise _unknown(f"field of {tag}", name, allowed)
    if issubclass(kind, _WithFiles) and "path" in given:
        given["path"] = _texts_of(given["path"])
    if kind is Drag and "to" in given:
        given["to"] = parse_target(given["to"], "drag")
    try:
        # A Secret or Target may be an object already.
        action: Action = msgspec.convert({**given, "type": tag}, kind, from_attributes=True)
    except msgspec.ValidationError as exc:
        raise InvalidAction(f"{tag}: {_in_words(str(exc))}", action=tag) from exc
    return action


def _texts_of(paths: Any) -> Any:
    if isinstance(paths, os.PathLike):
        return os.fspath(paths)
    return [_texts_of(path) for path in paths] if isinstance(paths, list | tuple) else paths


def _unknown(what: str, name: object, valid: Mapping[str, Any] | tuple[str, ...]) -> InvalidAction:
    if name is None:
        return InvalidAction(f"The {what} is missing; there are: {', '.join(valid)}", nearest=None)
    asked = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s-]+", "_", str(name)).lower()
    elsewhere = [
        (word, *more)
        for word, *more in (meant.split(maxsplit=1) for meant in ELSEWHERE.get(asked, ()))
        if word in valid
    ]
    matches = [asked] if asked in valid else difflib.get_close_matches(asked, list(valid), n=1, cutoff=0.6)
    nearest, *more = elsewhere[0] if elsewhere else (matches[0] if matches else None,)
    hint = f"; did you mean {nearest!r}{f' with {more[0]}' if more else ''}?" if nearest else "."
    return InvalidAction(f"There is no {what} {name!r}{hint} There are: {', '.join(valid)}", nearest=nearest, name=name)


def _in_words(message: str) -> str:
    """Rewrite an error message of msgspec for the caller."""
    missing = re.fullmatch(r"Object missing required field `(\w+)`(.*)", message)
    if missing:
        return f"the field {missing[1]!r} is missing{missing[2]}"
    return message[:1].lower() + message[1:]


def _check_target(target: Any, *, required: bool) -> None:
    given = [name for name in ("ref", "selector", "role") if getattr(target, name) is not None]
    if target.name is not None and target.role is None:
        raise ValueError("name needs role, such as role='button', name='Save'")
    if target.exact and target.name is None:
        raise ValueError("exact needs role and name")
    if target.place is not None and (target.selector is None or target.role is None):
        raise ValueError("place needs selector and role, as in the action log")
    if len(given) > 1 and given != ["selector", "role"]:
        raise ValueError(f"an element is named in one way; {' and '.join(given)} were given")
    if required and not given:
        raise ValueError("the element is missing: give ref, selector, or role with name")


def _names_point(target: Any) -> bool:
    if (target.x is None) != (target.y is None):
        raise ValueError("a point needs both x and y, in CSS pixels")
    return target.x is not None
