"""Which spare browser fits which start. No Chromium is started here."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from runtimed.browser.kinds import Kind, kind_of
from runtimed.pages import BrowserConfig


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "chromium"
    file.touch(mode=0o700)
    return file


def kind(program: Path, environment: dict[str, str] | None = None, **config: Any) -> Kind | None:
    return kind_of(BrowserConfig(chromium=str(program), **config), environment or {})


def test_starts_that_differ_in_what_is_told_at_the_hand_over_are_of_one_kind(program: Path) -> None:
    plain = kind(program)
    assert plain is not None
    for config in (
        {"cookie_file": "/c.json"},
        {"downloads_dir": "/d"},
        {"allow_files": True},
        {"persist_profile": False},
        {"profiles_dir": "/p"},
        {"interactive_viewer": True},
        {"geolocation": (1.0, 2.0, 3.0), "permissions": ("camera",)},
        {"http_credentials": ("a", "b", None), "proxy_login": ("a", "b"), "extra_http_headers": (("a", "b"),)},
        {"accept_downloads": False},
    ):
        assert kind(program, **config) == plain
    assert kind_of(BrowserConfig(), {"RUNTIMED_CHROMIUM": str(program)}) == plain
    assert kind(program, {"A_SECRET": "swordfish", "VIRTUAL_ENV": "/v", "DISPLAY": ":0"}) == plain


@pytest.mark.parametrize(
    "config",
    [
        {"viewport_width": 900},
        {"viewport_height": 900},
        {"user_agent": "Somebody"},
        {"allowed_domains": ()},
        {"chrome_args": ("--lang=de",)},
        {"locale": "de"},
        {"timezone_id": "Asia/Tokyo"},
        {"proxy_server": "http://p"},
        {"proxy_bypass": "a"},
        {"ignore_https_errors": True},
        {"device_scale_factor": 2.0},
        {"environment": {"TZ": "Asia/Tokyo"}},
        {"environment": {"https_proxy": "http://proxy"}},
        {"environment": {"ALL_PROXY": "http://proxy"}},
    ],
)
def test_starts_that_differ_in_what_chromium_is_started_with_are_not(program: Path, config: dict[str, Any]) -> None:
    other = kind(program, **config)
    assert other is not None
    assert other == kind(program, **config)
    assert other != kind(program)


@pytest.mark.parametrize(
    "config",
    [
        {"headless": False},
        {"profile": "work"},
        {"chrome_args": ("--remote-debugging-port=9222",)},
        {"chrome_args": ("--log-net-log=/tmp/log",)},
        {"chrome_args": ("--disk-cache-dir=~/cache",)},
        {"chrome_args": ("https://example.com",)},
        {"chromium": "/nowhere/chromium"},
    ],
)
def test_some_starts_no_spare_fits(program: Path, config: dict[str, Any]) -> None:
    assert kind_of(BrowserConfig(**{"chromium": str(program), **config}), {}) is None


def test_a_chromium_that_was_replaced_is_of_a_kind_that_replaces_the_other(program: Path) -> None:
    before = kind(program)
    os.utime(program, (1, 1))
    after, narrow = kind(program), kind(program, viewport_width=900)
    assert before is not None
    assert after is not None
    assert narrow is not None
    assert after != before
    assert after.replaces(before)
    assert not narrow.replaces(before)
    assert after.replaces(dataclasses.replace(after))


def test_the_variables_of_a_kind_are_in_no_log(program: Path) -> None:
    found = kind(program, {"https_proxy": "http://me:swordfish@proxy"})
    assert found is not None
    assert dict(found.variables) == {"https_proxy": "http://me:swordfish@proxy"}
    assert "swordfish" not in repr(found)


def test_the_home_folder_of_a_client_is_the_one_that_its_variables_name(program: Path) -> None:
    found = kind_of(BrowserConfig(chromium="~/chromium"), {"HOME": str(program.parent)})
    assert found is not None
    assert found.config.chromium == str(program)
