"""What a page can do without an end: log entries and downloads are limited, and what is left out is told."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from runtimed.browser import action_log
from runtimed.browser.action_log import ActionLog
from runtimed.browser.masking import Secrets
from runtimed.browser.rates import Allowance
from runtimed.pages import LogEntry


def test_an_allowance_takes_a_burst_then_a_rate_and_ends_at_its_total():
    allowance = Allowance(burst=10, rate=2, total=20)

    assert [allowance.take(4, now) for now in (0, 0, 0, 1, 2, 2)] == [True, True, False, True, False, False]
    assert not allowance.take(11, 1000)
    assert [allowance.take(8, 1000), allowance.take(1, 2000)] == [True, False]


def bytes_of(entries: list[LogEntry]) -> int:
    return sum(len(msgspec.msgpack.encode(entry)) for entry in entries)


@pytest.mark.parametrize("kind", ["console", "network", "tab", "dialog"])
@pytest.mark.parametrize("size", [1, 100_000])
def test_what_pages_do_without_an_end_is_limited_in_bytes_and_the_rest_is_counted(kind, size):
    entries: list[LogEntry] = []
    attempts = 6000

    async def storm() -> None:
        log = ActionLog(Secrets(), entries.append)
        for n in range(attempts):
            log.add(kind, "t1", f"{n}" + "x" * size, {"url": "y" * size})
        log.add("action", "t1", "done", {"code": "z" * 10_000})
        log.tell_omitted()  # all is told already

    asyncio.run(storm())

    assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
    *kept, omitted, action = entries
    assert {entry.kind for entry in kept} == {kind}
    assert bytes_of(kept) < 2**20
    assert omitted.kind == "omitted"
    assert omitted.data["kinds"] == {kind: attempts - len(kept)}
    assert omitted.text.endswith(f" UTC, as pages do more than is kept: {attempts - len(kept)} {kind}")
    assert (action.text, len(action.data["code"])) == ("done", 10_000)


def test_one_kind_takes_nothing_from_another_and_a_storm_that_ends_in_silence_is_told(monkeypatch):
    monkeypatch.setattr(action_log, "_TELL_EVERY", 0.01)
    entries: list[LogEntry] = []

    async def storm() -> None:
        told = asyncio.Event()

        def hear(entry: LogEntry) -> None:
            entries.append(entry)
            if entry.kind == "omitted":
                told.set()

        log = ActionLog(Secrets(), hear)
        for kind in ("console", "network"):
            for _ in range(6000):
                log.add(kind, "t1", "again")
        log.add("tab", "t1", "t1 is at about:blank")
        async with asyncio.timeout(10):
            await told.wait()

    asyncio.run(storm())

    *_, tab, omitted = entries
    assert tab.kind == "tab"
    assert sorted(omitted.data["kinds"]) == ["console", "network"]
    assert omitted.data["count"] == 12_000 - len(entries) + 2


def test_downloads_that_a_page_begins_without_an_end_are_refused_and_leave_no_files(browser, site, monkeypatch):
    monkeypatch.setattr(browser.browser._downloads, "_numbers", Allowance(burst=3, rate=0, total=3))
    folder, partial = browser.folder / "downloads", browser.folder / "partial"

    def told(kind: str) -> list[LogEntry]:
        return [entry for entry in browser.heard.entries if entry.kind == kind]

    browser.goto(f"{site.url}/plain")
    browser.js(
        """void setInterval(() => {
          const link = Object.assign(document.createElement('a'), { download: 'again.txt' });
          link.href = URL.createObjectURL(new Blob(['x'.repeat(1000)]));
          link.click();
        }, 1)"""
    )
    downloads = browser.browser._downloads
    browser.until(lambda: browser.browser._log._omitted["download"] > 2, "no download is refused")
    browser.js("document.body.innerHTML = '<a download=asked.txt href=/download/asked.txt>Asked for</a>'")
    asked = browser.do("download_file", role="link", name="Asked for")
    browser.do("goto", url="about:blank")  # the page ends, and its downloads with it
    browser.until(
        lambda: all(each.done() and each.result().done.done() for each in downloads._known.values()),
        "a download does not end",
    )

    assert Path(asked.data["path"]) in [Path(entry.data["path"]) for entry in told("download")]
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        Path(entry.data["path"]).name for entry in told("download")
    )
    assert len(told("download")) == 4
    browser.until(lambda: not list(partial.iterdir()), "a download that was refused left its file")
    assert sum(entry.data["kinds"]["download"] for entry in told("omitted")) > 2
