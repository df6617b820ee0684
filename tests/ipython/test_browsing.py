"""`%runtimed browser …` in a real IPython shell, with a real browser."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from IPython.core.error import UsageError
from IPython.core.formatters import DisplayFormatter

from runtimed import ActionFailed, BrowserSession, Client, InvalidAction, SessionClosed
from runtimed.ipython.browsing import _fields
from tests.ipython.conftest import Shell

PAGE = "data:text/html," + quote(
    """<title>Shop</title><main><h1>Tea and coffee</h1><label>Name <input id=who></label>
    <select><option>Tea<option>Coffee</select>
    <button onclick="document.title = document.querySelector('select').value + ' for ' + who.value">Buy</button></main>
    """
)


def shown(shell: Shell, code: str) -> dict[str, Any]:
    """Run a cell, and return what is displayed of its value, by MIME type."""
    result = shell.ip.run_cell(code)
    shell.capsys.readouterr()
    assert result.success, result.error_in_exec
    data: dict[str, Any] = DisplayFormatter().format(result.result)[0]
    return data


def test_a_browser_is_driven_and_what_it_shows_displays_itself(shell: Shell) -> None:
    shell.ip.user_ns["url"] = PAGE
    assert shell.run("%runtimed browser") == (
        "No browser session; `%runtimed browser goto URL` starts one, `browser start ID` joins one\n"
    )
    said = shell.run("%runtimed browser goto {url}").splitlines()
    session_id = said[0].removeprefix("Browser session ").split(" ")[0]
    assert said[0].endswith(f"(`runtimed.BrowserSession({session_id!r})` joins it from anywhere)")
    assert Client().sessions.get(session_id).timeout_minutes == 30

    text = shown(shell, "%runtimed browser observe")["text/plain"]
    assert text.startswith("Page: Shop\n")
    ref = text.partition('textbox "Name" [ref=')[2].partition("]")[0]
    assert shell.run(f"%runtimed browser fill {ref} 'Ada L.'") == 'Filled textbox "Name"\n'
    assert shell.run("%runtimed browser fill role=textbox name=Name 'Ada L.'") == 'Filled textbox "Name"\n'
    assert shell.run("%runtimed browser select_option selector=select value=Coffee").startswith("Selected Coffee")
    assert shell.run("%runtimed browser click button Buy") == 'Clicked button "Buy"\n'
    assert shell.run("%runtimed browser evaluate_js code=document.title").endswith("\nCoffee for Ada L.\n")
    scraped = shown(shell, "%runtimed browser scrape main")
    assert scraped["text/markdown"].startswith("# Tea and coffee")
    assert scraped["text/plain"] == scraped["text/markdown"].rstrip("\n")
    assert shown(shell, "%runtimed browser screenshot")["image/png"].startswith(b"\x89PNG")
    assert shell.run("%runtimed browser evaluate_js 'code=console.warn(1, 2)'").endswith("\nNone\n")
    assert shell.run("%runtimed browser console") == "warning: 1 2\n"
    assert shell.run("%runtimed browser downloads") == "Nothing so far\n"
    error, _ = shell.fail("%runtimed browser click 'role=button[name=Buy'")
    assert isinstance(error, ActionFailed)
    assert str(error).startswith("'role=button[name=Buy' is no selector: Unexpected end of selector while parsing")
    assert "(<anonymous>" not in str(error)
    status = shell.run("%runtimed browser status").splitlines()
    assert status[:2] == [f"Browser session {session_id}: active", f"* t1  Coffee for Ada L.  {PAGE}"]
    assert status[2].startswith("Watch it at http://127.0.0.1:")
    assert shell.complete("%runtimed browser scr") == [
        "%runtimed browser scr" + rest for rest in ("ape", "eenshot", "oll")
    ]
    assert shell.complete("%runtimed browser start brow") == [f"%runtimed browser start {session_id}"]

    error, _ = shell.fail("%runtimed browser hover role=button name=Sell timeout=0.2")
    assert isinstance(error, ActionFailed)
    other = BrowserSession(session_id)
    assert other.observe().title == "Coffee for Ada L."
    assert shell.run("%runtimed browser stop") == f"Stopped browser session {session_id}\n"
    assert other.status().status == "closed"
    with pytest.raises(SessionClosed):
        other.observe()
    assert shell.run("%runtimed browser stop") == "No browser session\n"


def test_a_browser_is_joined_and_stopped_by_its_id_and_is_no_notebook(shell: Shell) -> None:
    with BrowserSession("shop", timeout_minutes=10) as session:
        session.execute(type="goto", url=PAGE)

        assert shell.complete("%runtimed connect sh") == ["%runtimed connect shop"]
        assert shell.run("%runtimed connect shop").splitlines() == [
            "Browser session shop: active",
            f"* t1  Shop  {PAGE}",
            f"Watch it at {session.viewer_url}",
            "`%runtimed browser observe` shows the page as text, `%runtimed?` what else can be done",
        ]
        assert shown(shell, "%runtimed browser observe")["text/plain"].startswith("Page: Shop\n")
        state = shell.run("%runtimed")
        assert "session   none" in state
        assert "browser   shop: active (`%runtimed browser status` says more)\n" in state
        assert shell.run("%runtimed sessions").splitlines()[1].split()[:4] == ["*", "shop", "browser", "active"]
        for line in ("cells shop", "env shop", "env trust shop", "interrupt shop", "restart shop", "replay c shop"):
            error, _ = shell.fail(f"%runtimed {line}")
            assert "'shop' is a browser, not a notebook: `%runtimed connect shop` joins it" in str(error)
        error, _ = shell.fail("%%runtimed shop\n1")
        assert "'shop' is a browser, not a notebook" in str(error)
        error, _ = shell.fail("%runtimed connect shop --env auto")
        assert "session shop is a browser, which has no kernel" in str(error)

        assert shell.run("%runtimed stop shop") == "Stopped browser session shop\n"
    assert shell.run("%runtimed connect shop") == (
        "Browser session shop: closed (stopped)\n"
        "`%runtimed browser start shop` starts it again, with the profile that it had\n"
    )
    assert Client().sessions.get("shop").status == "closed"


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("goto http://a.example/?b=c", {"url": "http://a.example/?b=c"}),
        ("goto url=http://a.example wait_until=commit", {"url": "http://a.example", "wait_until": "commit"}),
        ("click d1e2", {"ref": "d1e2"}),
        ("click text=Buy", {"selector": "text=Buy"}),
        ("click role=button[name=Buy]", {"selector": "role=button[name=Buy]"}),
        ("click role=button name=7 count=2", {"role": "button", "name": "7", "count": 2}),
        ("click button name", {"role": "button", "name": "name"}),
        ("click d1e2 button=right", {"ref": "d1e2", "button": "right"}),
        ("fill d1e2 name=7", {"ref": "d1e2", "value": "name=7"}),
        ("fill role=textbox name=Year 2026", {"role": "textbox", "name": "Year", "value": "2026"}),
        ("fill selector=input value=true clear=false", {"selector": "input", "value": "true", "clear": False}),
        ("press key=Enter", {"key": "Enter"}),
    ],
)
def test_fields_of_actions_are_words_or_named(line: str, fields: dict[str, Any]) -> None:
    name, *words = line.split()

    assert _fields(name, words) == fields


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("scrap", "%runtimed browser: there is no 'scrap'. Did you mean scrape?"),
        ("fly", "there is no 'fly', only start, goto, observe, click, fill, scrape, screenshot, console, requests, "),
        ("start a b", "browser start: 'b' is too much"),
        ("click 'a", "no closing quotation"),
        ("click", "write click REF, click SELECTOR"),
        ("goto", "write goto URL"),
        ("goto wait_until=load", "url"),
        ("fill role=textbox name=Name", "value"),
        ("screenshot a b c", "write screenshot"),
        ("console all", "console: 'all' is too much"),
    ],
)
def test_what_makes_no_sense_gets_one_sentence_and_starts_nothing(shell: Shell, line: str, sentence: str) -> None:
    error, _ = shell.fail(f"%runtimed browser {line}")
    assert isinstance(error, UsageError | InvalidAction)
    assert sentence in str(error)
    assert Client().sessions.list(status="active", kind="browser") == []
