"""Cookie files: JSON as browsers, their extensions and test tools write it, and cookies.txt."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from runtimed.browser.cookie_forms import check_cookies, is_netscape, read_netscape, write_netscape
from runtimed.errors import BrowserError, InvalidCookieFile

__all__ = ["MAX_COOKIE_FILE", "read_cookie_file", "write_cookie_file"]

MAX_COOKIE_FILE: Final = 16 * 2**20
"""Largest cookie file, in bytes."""


def read_cookie_file(path: Path, *, must_exist: bool = False) -> list[dict[str, Any]]:
    """Read a cookie file: a JSON list, Playwright's storage state, or cookies.txt.

    Args:
        path: The file. A missing file is an empty jar, unless `must_exist`.
        must_exist: Whether a missing file is an error.

    Raises:
        InvalidCookieFile: If it contains something else; the sentence names the place. The file is not changed.
    """
    text = _read(path)
    if text is None:
        if must_exist:
            raise InvalidCookieFile(f"There is no cookie file {path}", path=str(path))
        return []
    try:
        if is_netscape(text):
            return read_netscape(text)
        value = json.loads(text)
        # Playwright's storage state keeps them under this key.
        return check_cookies(value["cookies"] if isinstance(value, dict) and "cookies" in value else value)
    except (json.JSONDecodeError, RecursionError) as exc:
        where = (
            f"line {exc.lineno}, column {exc.colno}: {exc.msg}" if isinstance(exc, json.JSONDecodeError) else str(exc)
        )
        raise _invalid(path, f"is no JSON ({where})") from exc
    except BrowserError as exc:
        raise _invalid(path, f"cannot be used: {exc.message}", **exc.data) from exc


def write_cookie_file(path: Path, cookies: Sequence[Mapping[str, Any]]) -> None:
    """Write all cookies atomically, mode 0600: a reader sees the old file or the new one.

    The file keeps its form: cookies.txt, or Playwright's storage state with its other keys.

    Raises:
        OSError: If the folder cannot be written to.
    """
    path = path.resolve()  # a link stays; its target is written
    text = _in_form_of(path, [dict(cookie) for cookie in cookies])
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _in_form_of(path: Path, cookies: list[dict[str, Any]]) -> str:
    whole: Any = cookies
    try:
        before = _read(path) or "[]"
        if is_netscape(before):
            return write_netscape(cookies)
        value = json.loads(before)
        if isinstance(value, dict) and "cookies" in value:
            whole = {**value, "cookies": cookies}
    except (InvalidCookieFile, ValueError, RecursionError):
        pass  # damaged since it was read
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_COOKIE_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise InvalidCookieFile(f"The cookie file {path} cannot be read: {exc.strerror}", path=str(path)) from exc
    if len(data) > MAX_COOKIE_FILE:
        raise InvalidCookieFile(f"The cookie file {path} has more than {MAX_COOKIE_FILE} bytes", path=str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise _invalid(path, f"is not UTF-8 at byte {exc.start}, in line {line}; save it as UTF-8") from exc


def _invalid(path: Path, what: str, **data: Any) -> InvalidCookieFile:
    return InvalidCookieFile(f"The cookie file {path} {what}; it is left as it is", path=str(path), **data)
