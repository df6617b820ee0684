"""Cookies as other tools write them: kept exactly, or named with their place."""

import json
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from runtimed import BrowserError, InvalidCookieFile
from runtimed.browser.cookie_forms import check_cookies
from runtimed.browser.cookies import read_cookie_file, write_cookie_file
from tests.browser.conftest import browsing

LATER = float(int(time.time()) + 100_000)
COOKIE = {"name": "a", "value": "1", "domain": "example.com", "path": "/"}
KEPT = {**COOKIE, "httpOnly": False, "secure": False}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"expiry": int(LATER)}, {"expires": LATER}),  # Selenium
        ({"expires": LATER, "session": False, "size": 2, "sourceScheme": "Secure"}, {"expires": LATER}),  # Puppeteer
        ({"expires": -1, "session": True}, {}),
        ({"hostOnly": True, "session": True, "storeId": "0", "id": 1}, {}),  # EditThisCookie, Cookie-Editor
        ({"hostOnly": False}, {"domain": ".example.com"}),
        ({"domain": ".example.com", "hostOnly": True}, {"domain": "example.com"}),
        ({"domain": "127.0.0.1", "hostOnly": False}, {"domain": "127.0.0.1"}),
        ({"domain": ".example.com"}, {"domain": ".example.com"}),
        ({"expirationDate": LATER + 0.25}, {"expires": LATER + 0.25}),
        ({"expirationDate": LATER, "expires": datetime.fromtimestamp(LATER, UTC).isoformat()}, {"expires": LATER}),
        ({"expires": datetime.fromtimestamp(LATER, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")}, {"expires": LATER}),
        ({"expires": format_datetime(datetime.fromtimestamp(LATER, UTC), usegmt=True)}, {"expires": LATER}),
        ({"expires": str(int(LATER))}, {"expires": LATER}),
        ({"expires": 1000}, {"expires": 1000.0}),
        ({"expires": -5}, {"expires": 1.0}),
        ({"sameSite": "no_restriction", "secure": True}, {"secure": True, "sameSite": "None"}),
        ({"sameSite": "unspecified", "httpOnly": True}, {"httpOnly": True}),
        ({"sameSite": "lax", "path": "/x"}, {"path": "/x", "sameSite": "Lax"}),
        (
            {"partitionKey": {"topLevelSite": "https://a.example", "hasCrossSiteAncestor": True}},
            {"partitionKey": "https://a.example", "_crHasCrossSiteAncestor": True},
        ),
    ],
)
def test_cookies_as_other_tools_write_them(given, expected):
    assert check_cookies([{**COOKIE, **given}]) == [{**KEPT, **expected}]


def test_a_cookie_of_an_address_is_as_safe_as_that():
    given = [{"name": "d", "value": "", "url": "https://example.com/"}]

    assert check_cookies(given) == [{**given[0], "httpOnly": False}]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": None}, "cookie 2: it has no name"),
        ({"value": 1}, "cookie 2: value is no text"),
        ({"domain": ""}, "cookie 2 (a): it has no domain"),
        ({"secure": 1}, "cookie 2 (a): secure is neither true nor false"),
        ({"hostOnly": "no"}, "cookie 2 (a): hostOnly is neither true nor false"),
        ({"expires": "soon"}, "cookie 2 (a): expires is no number of seconds and no date: 'soon'"),
        (
            {"expires": LATER * 1000},
            "cookie 2 (a): expires is after the year 9999; it counts seconds, not milliseconds",
        ),
        ({"expires": 0}, "cookie 2 (a): a date of 0 is long ago for some tools"),
        (
            {"expires": LATER, "expirationDate": LATER + 60},
            "cookie 2 (a): expires and expirationDate are different times",
        ),
        ({"expires": LATER, "session": True}, "cookie 2 (a): session is true, though there is a date"),
        ({"sameSite": "no_restriction", "secure": False}, "cookie 2 (a): sameSite 'no_restriction' needs secure"),
        ({"sameSite": "x"}, "cookie 2 (a): sameSite is Strict, Lax or None, not 'x'"),
        ({"partitionKey": 1}, "cookie 2 (a): partitionKey is no site"),
    ],
)
def test_what_cannot_be_kept_is_named_with_its_place(given, says):
    with pytest.raises(BrowserError) as caught:
        check_cookies([COOKIE, {**COOKIE, **given}])

    assert caught.value.message.startswith(says)
    assert caught.value.cookie == 2


NETSCAPE = f"""# Netscape HTTP Cookie File
# https://curl.se/docs/http-cookies.html

.example.com\tTRUE\t/\tFALSE\t{int(LATER)}\ta\t1
example.com\tFALSE\t/x\tTRUE\t0\tb\tcaf\u00e9 "q"
#HttpOnly_example.org\tFALSE\t/\tFALSE\t1000\tc\t
127.0.0.1\tFALSE\t/\tFALSE\t{int(LATER)}\td
"""


def test_a_cookies_txt_is_read_and_stays_one(tmp_path):
    path = tmp_path / "cookies.txt"
    path.write_text(NETSCAPE.replace("\n", "\r\n"), newline="")

    cookies = read_cookie_file(path)
    write_cookie_file(path, cookies)

    plain = {"path": "/", "httpOnly": False, "secure": False}
    assert cookies == [
        {**plain, "name": "a", "value": "1", "domain": ".example.com", "expires": LATER},
        {**plain, "name": "b", "value": 'caf\u00e9 "q"', "domain": "example.com", "path": "/x", "secure": True},
        {**plain, "name": "c", "value": "", "domain": "example.org", "httpOnly": True, "expires": 1000.0},
        {**plain, "name": "d", "value": "", "domain": "127.0.0.1", "expires": LATER},
    ]
    assert path.read_text().splitlines()[0] == "# Netscape HTTP Cookie File"
    assert read_cookie_file(path) == cookies


def test_the_storage_state_of_playwright_keeps_what_else_it_holds(tmp_path):
    path = tmp_path / "state.json"
    origins = [{"origin": "https://example.com", "localStorage": [{"name": "x", "value": "1"}]}]
    path.write_text(json.dumps({"cookies": [COOKIE], "origins": origins}))

    assert read_cookie_file(path) == [KEPT]
    write_cookie_file(path, [KEPT, {**KEPT, "name": "b"}])

    assert json.loads(path.read_text()) == {"cookies": [KEPT, {**KEPT, "name": "b"}], "origins": origins}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'[{"name": "a",]', "is no JSON (line 1, column 15"),
        (b"", "is no JSON (line 1, column 1"),
        (b"hello", "is no JSON (line 1, column 1"),
        (b"[\n\xff]", "is not UTF-8 at byte 2, in line 2; save it as UTF-8"),
        (b"{}", "cannot be used: cookies are a list of objects"),
        (b'{"cookies": [1]}', "cannot be used: cookie 1 is no object"),
        (b"# a\na\tTRUE\t/", "cannot be used: line 2 has 3 fields, parted by tabs, where a cookie has 7"),
        (b"a\tyes\t/\tTRUE\t0\ta\tb", "cannot be used: line 1: the second and the fourth field are TRUE or FALSE"),
        (b"a\tTRUE\t/\tTRUE\tx\ta\tb", "cannot be used: line 1: 'x' is no number of seconds since 1970"),
        (b"\tTRUE\t/\tTRUE\t0\ta\tb", "cannot be used: line 1 has no domain"),
    ],
)
def test_a_bad_cookie_file_is_kept_and_the_place_is_said(tmp_path, text, says):
    path = tmp_path / "cookies.json"
    path.write_bytes(text)

    with pytest.raises(InvalidCookieFile) as caught:
        read_cookie_file(path)

    assert caught.value.message.startswith(f"The cookie file {path} {says}")
    assert caught.value.message.endswith("it is left as it is")
    assert caught.value.path == str(path)
    assert path.read_bytes() == text


# --- with a browser ---


def cookies_of(browser):
    return {(one["name"], one["domain"]): one for one in browser.run(browser.browser.cookies())}


def test_chromium_has_the_cookies_of_a_file_as_they_are(run, shared, tmp_path):
    path = tmp_path / "cookies.txt"
    path.write_text(NETSCAPE)
    over = {**COOKIE, "name": "c", "domain": "example.org"}
    shared.run(shared.browser._context.clear_cookies())
    shared.run(shared.browser.set_cookies([{**over, "expires": 1000}, over]))
    assert set(cookies_of(shared)) == {("c", "example.org")}
    shared.run(shared.browser.set_cookie_file(path))
    more = [
        {**COOKIE, "name": "idn", "domain": "b\u00fccher.example", "value": "\u20ac"},
        {**COOKIE, "name": "far", "expires": LATER + 10**9},
        {"name": "url", "value": "1", "url": "https://example.com/a/b"},
        {**COOKIE, "name": "none", "secure": True, "sameSite": "no_restriction", "hostOnly": False},
    ]
    shared.run(shared.browser.set_cookies(more))

    kept = cookies_of(shared)
    common = {"path": "/", "expires": -1, "httpOnly": False, "secure": False, "sameSite": "Lax"}
    assert kept.pop(("far", "example.com"))["expires"] < time.time() + 401 * 86_400
    assert kept == {
        (one["name"], one["domain"]): one
        for one in [
            {**common, "name": "a", "value": "1", "domain": ".example.com", "expires": LATER},
            {**common, "name": "b", "value": 'caf\u00e9 "q"', "domain": "example.com", "path": "/x", "secure": True},
            {**common, "name": "d", "value": "", "domain": "127.0.0.1", "expires": LATER},
            {**common, "name": "idn", "value": "\u20ac", "domain": "xn--bcher-kva.example"},
            {**common, "name": "url", "value": "1", "domain": "example.com", "path": "/a/", "secure": True},
            {**common, "name": "none", "value": "1", "domain": ".example.com", "secure": True, "sameSite": "None"},
        ]
    }


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"value": "x" * 5000}, "Chromium refuses cookie 2 (a): "),
        ({"domain": ".co.uk"}, "Chromium does not keep cookie 2 (a) as it is: domain is 'co.uk' in place of '.co.uk'"),
        ({"value": "a;b"}, "Chromium refuses cookie 2 (a): "),
    ],
)
def test_what_chromium_does_not_keep_is_named_and_nothing_is_set(shared, bad, says):
    shared.run(shared.browser.set_cookies([{**COOKIE, "name": "old"}]))
    before = cookies_of(shared)

    with pytest.raises(BrowserError) as caught:
        shared.run(shared.browser.set_cookies([{**COOKIE, "name": "old", "value": "new"}, {**COOKIE, **bad}]))

    assert caught.value.message.startswith(says)
    assert cookies_of(shared) == before
    with pytest.raises(InvalidCookieFile, match="There is no cookie file /nowhere"):
        shared.run(shared.browser.set_cookie_file(Path("/nowhere")))


def test_a_file_with_a_cookie_that_chromium_does_not_keep_starts_no_browser(run, tmp_path):
    path = tmp_path / "cookies.json"
    path.write_text(json.dumps([COOKIE, {**COOKIE, "domain": ".co.uk"}]))
    before = path.read_text()

    with (
        pytest.raises(InvalidCookieFile, match=r"cookies.json: Chromium does not keep cookie 2 \(a\)"),
        browsing(run, cookie_file=str(path)),
    ):
        pass

    assert path.read_text() == before
