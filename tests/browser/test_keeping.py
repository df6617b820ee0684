"""What a session keeps: cookies in a file, profiles, and nothing that it should not."""

import asyncio
import json
import os
import signal
import stat
import tempfile
import time
from pathlib import Path

import pytest

from runtimed import BrowserError
from runtimed.browser import perform, pictures
from runtimed.browser.chromium import Chromium
from runtimed.browser.cookies import read_cookie_file, write_cookie_file
from runtimed.browser.profiles import list_profiles, load_profile, remove_profile, store_profile
from tests.browser.conftest import browsing
from tests.browser.server import HANGS

COOKIE = {"name": "a", "value": "1", "domain": "127.0.0.1"}


def names(cookies):
    return sorted(cookie["name"] for cookie in cookies)


def contents(folder):
    """What the files in a folder hold, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- files, no browser ---


def test_a_cookie_file_is_written_whole_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "deep" / "cookies.json"
    write_cookie_file(path, [COOKIE])
    link = tmp_path / "link.json"
    link.symlink_to(path)
    write_cookie_file(link, [COOKIE, {**COOKIE, "name": "b"}])

    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(read_cookie_file(path)) == ["a", "b"]
    assert list(path.parent.iterdir()) == [path]
    assert read_cookie_file(tmp_path / "none.json") == []
    path.write_text(json.dumps({"cookies": [COOKIE], "origins": []}))
    assert names(read_cookie_file(path)) == ["a"]


def test_a_stored_profile_takes_the_place_of_the_one_before_in_one_step(tmp_path):
    profiles, folder = tmp_path / "profiles", tmp_path / "folder"
    (folder / "Default" / "Cache").mkdir(parents=True)
    (folder / "Default" / "Cache" / "x").write_text("large")
    (folder / "SingletonLock").symlink_to("nowhere")
    (folder / "Default" / "Prefs").write_text("1")
    store_profile(folder, profiles, "work")
    (folder / "Default" / "Prefs").write_text("2")
    store_profile(folder, profiles, "work")

    assert list_profiles(profiles) == ["work"]
    assert len(list(profiles.iterdir())) == 2
    assert load_profile(profiles, "work", tmp_path / "into")
    assert sorted(path.name for path in (tmp_path / "into").rglob("*")) == ["Default", "Prefs"]
    assert (tmp_path / "into" / "Default" / "Prefs").read_text() == "2"
    assert not load_profile(profiles, "play", tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []
    with pytest.raises(BrowserError, match="There is no profile 'play'; there are: work"):
        remove_profile(profiles, "play")
    remove_profile(profiles, "work")
    assert list(profiles.iterdir()) == []
    for name in ("", "../up", ".hidden", "a/b", "x" * 101):
        with pytest.raises(BrowserError, match="A profile's name"):
            store_profile(folder, profiles, name)


# --- with a browser ---


@pytest.fixture
def temporary(monkeypatch):
    """The folder for temporary files, in which nothing is left."""
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


def test_a_session_that_starts_again_has_the_cookies_of_its_file_and_its_profile_unless_that_was_not_to_be_kept(
    run, site, tmp_path, temporary
):
    path = tmp_path / "cookies.json"
    later = time.time() + 1000
    path.write_text(json.dumps([{**COOKIE, "expires": later}, {**COOKIE, "name": "b", "expires": later}]))
    folder = tmp_path / "session"
    folder.mkdir(mode=0o700)
    stored, store = "localStorage.getItem('x')", "void localStorage.setItem('x', '1')"
    with browsing(run, folder, cookie_file=str(path)) as browser:
        assert list(temporary.iterdir())
        assert list(temporary.glob("playwright*")) == []  # its driver would not always have time to remove it
        browser.goto(f"{site.url}/cookie")
        assert browser.js("document.cookie.split('; ').sort()") == ["a=1", "b=1", "tasted=yes"]
        browser.js("void (document.cookie = 'a=; Max-Age=0')")
        browser.run(browser.browser.set_cookies([{**COOKIE, "name": "c"}]))
        assert names(browser.run(browser.browser.cookies())) == ["b", "c", "tasted"]
        with pytest.raises(BrowserError, match="cookie 2: it has no value"):
            browser.run(browser.browser.set_cookies([COOKIE, {"name": "d"}]))
        assert browser.js(stored) is None
        browser.js(store)

    assert names(read_cookie_file(path)) == ["b", "c", "tasted"]
    # A cookie that is not in the file is not in the browser, though its profile has it.
    path.write_text("[]")
    with browsing(run, folder, cookie_file=str(path), persist_profile=False) as browser:
        assert browser.run(browser.browser.cookies()) == []
        browser.goto(f"{site.url}/plain")
        assert browser.js(stored) == "1"
        browser.js(store)
    with browsing(run, folder) as browser:
        browser.goto(f"{site.url}/plain")
        assert browser.js(stored) is None


def test_cookies_outlive_the_death_of_chromium_and_nothing_is_left_in_the_folder_for_temporary_files(
    run, site, tmp_path, temporary
):
    path = tmp_path / "cookies.json"
    with browsing(run, cookie_file=str(path)) as browser:
        browser.goto(f"{site.url}/cookie")
        browser.until(lambda: path.exists() and "tasted" in path.read_text(), "the cookies are not written")
        assert list(temporary.iterdir())
        os.killpg(browser.browser.pid, signal.SIGKILL)
        run(asyncio.wait([browser.browser.ended]))

    assert names(read_cookie_file(path)) == ["tasted"]


def test_cookies_of_a_profile_outlive_the_death_of_chromium_and_those_that_were_deleted_do_not(run, site, tmp_path):
    def kept():
        return {cookie["name"] for cookie in read_cookie_file(tmp_path / "profile" / "runtimed-cookies.json")}

    partitioned = {
        "name": "apart", "value": "1", "domain": "127.0.0.1", "path": "/", "httpOnly": False, "secure": True,
        "expires": -1, "sameSite": "None", "partitionKey": "http://127.0.0.1", "_crHasCrossSiteAncestor": False,
    }  # fmt: skip
    with browsing(run, tmp_path) as browser:
        browser.run(browser.browser.set_cookies([COOKIE, partitioned]))
        browser.goto(f"{site.url}/cookie")
        browser.until(lambda: kept() == {"a", "apart", "tasted"}, "the cookies are not written")
        # With so many changes Chromium writes its own file, too.
        many = [{**COOKIE, "name": "x", "domain": f"x{n}.example", "expires": time.time() + 1000} for n in range(600)]
        browser.run(browser.browser.set_cookies(many))
        browser.js("void (document.cookie = 'tasted=; Max-Age=0')")
        browser.run(browser.browser._context.clear_cookies(name="x"))
        browser.until(lambda: kept() == {"a", "apart"}, "what was deleted is still written")
        os.kill(browser.browser.pid, signal.SIGKILL)

    with browsing(run, tmp_path) as browser:
        cookies = {cookie["name"]: cookie for cookie in browser.run(browser.browser.cookies())}
        assert set(cookies) == {"a", "apart"}
        assert cookies["apart"] == partitioned


def test_a_bad_cookie_file_starts_no_browser(run, tmp_path):
    path = tmp_path / "cookies.json"
    path.write_text("{")

    with pytest.raises(BrowserError, match="is no JSON"), browsing(run, cookie_file=str(path)):
        pass


STORE = """async () => {
  localStorage.setItem('kept', 'yes');
  document.cookie = 'session=1';
  await new Promise((resolve, reject) => {
    const opening = indexedDB.open('tea', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore('leaves').put('green', 'colour');
    opening.onsuccess = () => { opening.result.close(); resolve(); };
    opening.onerror = reject;
  });
}"""

STORED = """async () => [localStorage.getItem('kept'), document.cookie, await new Promise(resolve => {
  const opening = indexedDB.open('tea', 1);
  opening.onupgradeneeded = () => opening.transaction.abort();
  opening.onerror = () => resolve(null);
  opening.onsuccess = () => {
    const asked = opening.result.transaction('leaves').objectStore('leaves').get('colour');
    asked.onsuccess = () => { opening.result.close(); resolve(asked.result); };
  };
})]"""


def test_profiles_keep_what_pages_store_saved_live_each_time_or_at_the_end(run, site, tmp_path):
    profiles = str(tmp_path / "profiles")
    with browsing(run, profile="end", profiles_dir=profiles) as browser:
        browser.goto(f"{site.url}/plain")
        assert browser.js(STORED) == [None, "", None]
        browser.js("void localStorage.setItem('kept', 'before')")
        browser.run(browser.browser.save_profile("live"))
        browser.js(STORE)  # by itself, Chromium writes the second one after a minute
        browser.run(browser.browser.save_profile("live"))
        assert browser.js(STORED) == ["yes", "session=1", "green"]

    saved = contents(tmp_path / "profiles")
    with browsing(run, profile="live", profiles_dir=profiles, persist_profile=False) as browser:
        browser.goto(f"{site.url}/plain")
        assert browser.js(STORED) == ["yes", "session=1", "green"]
        browser.js("void localStorage.setItem('kept', 'changed')")
    with browsing(run, profile="end", profiles_dir=profiles, persist_profile=False) as browser:
        browser.goto(f"{site.url}/plain")
        assert browser.js("localStorage.getItem('kept')") == "yes"
    assert contents(tmp_path / "profiles") == saved


LAST_WORDS = """() => {
  document.cookie = 'kept=1; Max-Age=1000';
  document.cookie = 'session=1';
  localStorage.setItem('kept', 'yes');
  addEventListener('beforeunload', event => event.preventDefault());
  addEventListener('pagehide', () => localStorage.setItem('last', 'word'));
}"""


def test_what_pages_store_last_is_kept_however_fast_chromium_ends_beside_a_dialog_and_a_page_that_hangs(
    run, site, tmp_path, monkeypatch
):
    async def end_at_once(chromium):
        chromium.kill()
        await asyncio.wait([chromium.ended])

    folder = tmp_path / "session"
    folder.mkdir(mode=0o700)
    with monkeypatch.context() as patch, browsing(run, folder) as browser:
        patch.setattr(Chromium, "close", end_at_once)  # as if its processes ended in the worst of all orders
        patch.setattr(pictures, "_LONGEST", 600.0)  # for which a page that hangs must not hold up the end
        patch.setattr(perform, "_MORE", 0.5)
        browser.goto(f"{site.url}/plain")
        browser.js(LAST_WORDS)
        for page, meanwhile in (("form", "0"), ("tiny", "alert('?')"), ("article", HANGS)):
            browser.do("new_tab", url=f"{site.url}/{page}")
            browser.js(f"void localStorage.setItem('{page}', 'too')")
            browser.execute("evaluate_js", code=f"() => {{ {meanwhile} }}", timeout=0.5)
        last = len(browser.heard.entries)
    assert [entry.text for entry in browser.heard.entries[last:] if entry.kind == "tab"] == []

    with browsing(run, folder) as browser:
        browser.goto(f"{site.url}/plain")
        kept = browser.js("['kept', 'last', 'form', 'tiny', 'article'].map(key => localStorage.getItem(key))")
        assert kept == ["yes", "word", "too", "too", "too"]
        assert browser.js("document.cookie.split('; ').sort()") == ["kept=1", "session=1"]
