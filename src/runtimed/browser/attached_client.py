"""Decides what other clients of Chromium may do to the session's dialogs, downloads and browser.

Sans-IO: takes the messages of the Chrome DevTools Protocol between a client and Chromium, and returns a verdict on
each; nothing here waits. Messages that are not named here pass unchanged.

What Chromium keeps once for all clients is kept for each of them:
  the download folder: a client hears of all downloads and gets copies where it wants them; the session's own stay;
  the end: a client that closes the browser only leaves it;
  dialogs: Playwright dismisses each at once unless its user has a handler, those of the session's actions included.
  Such an answer waits until the client itself wants something of the page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["PASS", "PATIENCE", "AttachedClient", "Delivery", "SharedBrowser", "Told", "Verdict"]

PATIENCE: Final = 5.0
"""Seconds that a client waits for a page in another's dialog before its own answer to the dialog counts."""

_OWN_IDS: Final = 2**30
"""First id of the commands that we add to a client's; a client counts from 1."""

_WANTS: Final = ("Input.", "Runtime.evaluate", "Runtime.callFunctionOn", "Page.captureScreenshot")
"""Commands that a page answers only once its dialog is closed."""
_ACTS: Final = ("Input.", "Page.navigate", "Page.reload", "Page.close")
"""Commands by which a client acts on a page, and becomes the author of what follows."""

_CHANGES: Final = frozenset(
    {
        "Browser.grantPermissions",
        "Browser.resetPermissions",
        "Browser.setPermission",
        "Emulation.clearDeviceMetricsOverride",
        "Emulation.clearGeolocationOverride",
        "Emulation.setDeviceMetricsOverride",
        "Emulation.setGeolocationOverride",
        "Emulation.setLocaleOverride",
    }
)
"""Commands whose effect ends with the client, and takes with it what the session had set."""

_REPLY: Final = re.compile(rb'\{"id":(\d+)[,}]')
_EVENT: Final = re.compile(rb'\{"method":"([A-Za-z.]+)"')


class Delivery(msgspec.Struct, frozen=True):
    """A download of which a client expects a copy.

    Attributes:
        folder: Where the copy goes.
        named: Whether it has the name that the page suggests; else its GUID.
    """

    guid: str
    folder: str
    named: bool


class Verdict(msgspec.Struct, frozen=True):
    """The verdict on a command.

    Attributes:
        onward: What Chromium gets in its place; None for the command as it is.
        answers: What the client is answered at once.
        ends: Whether the client is disconnected.
        impatient: The tab for whose dialog it has an answer, which counts after `PATIENCE`; see `give_up`.
    """

    onward: tuple[bytes, ...] | None = None
    answers: tuple[bytes, ...] = ()
    ends: bool = False
    impatient: str | None = None


class Told(msgspec.Struct, frozen=True):
    """The verdict on a message of Chromium.

    Attributes:
        passes: Whether the client gets it.
        delivery: What is delivered before the client gets it.
    """

    passes: bool = True
    delivery: Delivery | None = None


PASS: Final = Verdict()
_HEARS: Final = Told()


class _Command(msgspec.Struct):
    id: int
    method: str
    session: str = msgspec.field(default="", name="sessionId")
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _Event(msgspec.Struct):
    params: dict[str, Any]
    session: str = msgspec.field(default="", name="sessionId")


class _OpenDialog(msgspec.Struct):
    """An open dialog.

    Attributes:
        is_theirs: Whether the client caused it.
        kept: The client's answer, which waits.
    """

    kind: str
    is_theirs: bool
    kept: _Command | None = None


class SharedBrowser:
    """The state that the clients of one browser share.

    Attributes:
        default_context: Chromium's id of the session's browser context.
        aside: Id of an empty one: what clients set there has no effect, and they hear of their downloads.
        acting: Number of the session's actions in progress, by tab.
        author: The client that acted last, by tab; None for an action.
    """

    def __init__(self) -> None:
        self.default_context = ""
        self.aside = ""
        self.acting: Counter[str] = Counter()
        self.author: dict[str, AttachedClient | None] = {}

    def is_ours(self, info: Mapping[str, Any]) -> bool:
        """Whether a target is in the session's browser context. Without other clients all are."""
        return not self.default_context or info.get("browserContextId", self.default_context) == self.default_context

    def forget(self, target: str) -> None:
        """Forget a tab that is closed."""
        self.author.pop(target, None)

    def begin_action(self, target: str) -> None:
        """Note that an action of the session begins in a tab."""
        self.acting[target] += 1
        self.author[target] = None

    def end_action(self, target: str) -> None:
        """Note that an action of the session has ended."""
        self.acting[target] -= 1
        if self.acting[target] <= 0:
            del self.acting[target]


class AttachedClient:
    """One client.

    Args:
        shared: The state that it shares with the others.
        target: The tab of its connection; None for the browser itself.

    Attributes:
        changed: Methods of the protocol by which it has changed something for all.
    """

    def __init__(self, shared: SharedBrowser, target: str | None = None) -> None:
        self.changed: set[str] = set()
        self._shared = shared
        self._targets = {} if target is None else {"": target}
        self._folder: str | None = None
        self._named = False
        self._asked: dict[int, str] = {}
        self._dialogs: dict[str, _OpenDialog] = {}
        self._own_id = _OWN_IDS

    # --- what it asks for ---

    def command(self, text: bytes) -> Verdict:
        """Return the verdict on a command."""
        try:
            command = msgspec.json.decode(text, type=_Command)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return PASS  # Chromium reports what is wrong with it
        method, target = command.method, self._targets.get(command.session)
        if method in _CHANGES and (target is not None or method.startswith("Browser.")):
            self.changed.add(method)
        match method:
            case "Browser.setDownloadBehavior" | "Page.setDownloadBehavior":
                return self._set_downloads(command)
            case "Browser.close":
                return Verdict((), (_done(command),), ends=True)
            case "Page.handleJavaScriptDialog" if target is not None:
                return self._answer_dialog(command, target)
            case "Target.closeTarget":
                self._shared.author[_params(command).get("targetId", "")] = self
        if target is None:
            return PASS
        if method.startswith(_ACTS):
            self._shared.author[target] = self
        if method.startswith((*_ACTS, *_WANTS)):
            self._asked[command.id] = target
            dialog = self._dialogs.get(target)
            if dialog is not None and dialog.kept is not None:
                return Verdict(impatient=target)
        return PASS

    def _set_downloads(self, command: _Command) -> Verdict:
        params = _params(command)
        if params.get("browserContextId", self._shared.default_context) != self._shared.default_context:
            return PASS  # a context of its own
        behavior, folder = params.get("behavior"), params.get("downloadPath")
        self._folder = folder if isinstance(folder, str) and behavior in ("allow", "allowAndName") else None
        self._named = behavior == "allow"
        aside = {"eventsEnabled": False, **params, "browserContextId": self._shared.aside}
        plain = {"id": command.id, "method": "Browser.setDownloadBehavior", "params": aside}
        return Verdict((msgspec.json.encode(plain | _session(command)),))

    def _answer_dialog(self, command: _Command, target: str) -> Verdict:
        dialog = self._dialogs.get(target)
        # A client without a handler answers so; the opposite is somebody's decision.
        unasked = bool(_params(command).get("accept")) == (dialog is not None and dialog.kind == "beforeunload")
        if dialog is None or dialog.is_theirs or not unasked:
            return PASS
        dialog.kept = command
        return Verdict((), (_done(command),), impatient=target if target in self._asked.values() else None)

    def give_up(self, target: str) -> bytes | None:
        """Return the answer that has waited for the end of a dialog, for Chromium; None if the dialog is over."""
        dialog = self._dialogs.get(target)
        if dialog is None or dialog.kept is None or target not in self._asked.values():
            return None
        kept, dialog.kept, dialog.is_theirs = dialog.kept, None, True
        self._own_id += 1
        plain = {"id": self._own_id, "method": kept.method, "params": _params(kept)}
        return msgspec.json.encode(plain | _session(kept))

    # --- what it hears ---

    def told(self, text: bytes) -> Told:
        """Return the verdict on a message of Chromium."""
        reply = _REPLY.match(text)
        if reply is not None:
            number = int(reply[1])
            self._asked.pop(number, None)
            return Told(passes=number <= _OWN_IDS)
        name = _EVENT.match(text)
        if name is None:
            return _HEARS
        match name[1]:
            case b"Target.attachedToTarget":
                self._attached(_event(text))
            case b"Target.detachedFromTarget":
                self._detached(_event(text))
            case b"Page.javascriptDialogOpening":
                self._opening(_event(text))
            case b"Page.javascriptDialogClosed":
                self._dialogs.pop(self._targets.get(_event(text).session, ""), None)
            case b"Browser.downloadProgress":
                return self._progress(_event(text).params)
        return _HEARS

    def _attached(self, event: _Event) -> None:
        info = event.params["targetInfo"]
        if not self._shared.is_ours(info):
            return
        # Frames and workers are parts of their tab.
        outer = None if info["type"] in ("page", "tab") else self._targets.get(event.session)
        self._targets[event.params["sessionId"]] = outer or info["targetId"]

    def _detached(self, event: _Event) -> None:
        target = self._targets.pop(event.params.get("sessionId", ""), None)
        if target is not None and target not in self._targets.values():
            self._dialogs.pop(target, None)
            self._asked = {number: asked for number, asked in self._asked.items() if asked != target}

    def _opening(self, event: _Event) -> None:
        target = self._targets.get(event.session)
        if target is None or target in self._dialogs:  # the client has several sessions there
            return
        is_last = self._shared.author.get(target) is self or target in self._asked.values()
        self._dialogs[target] = _OpenDialog(event.params["type"], is_last and not self._shared.acting[target])

    def _progress(self, params: dict[str, Any]) -> Told:
        if params["state"] != "completed" or self._folder is None:
            return _HEARS
        return Told(passes=False, delivery=Delivery(params["guid"], self._folder, self._named))


def _params(command: _Command) -> dict[str, Any]:
    params = msgspec.json.decode(command.params)
    return params if isinstance(params, dict) else {}


def _event(text: bytes) -> _Event:
    return msgspec.json.decode(text, type=_Event)


def _session(command: _Command) -> dict[str, str]:
    return {"sessionId": command.session} if command.session else {}


def _done(command: _Command) -> bytes:
    return msgspec.json.encode({"id": command.id, "result": {}} | _session(command))
