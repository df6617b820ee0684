"""Where secrets are taken out, and in which forms."""

import base64
import html
import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import msgspec
import pytest

from runtimed import BrowserError
from runtimed.actions import Secret
from runtimed.browser.markdown import write_markdown
from runtimed.browser.masking import Secrets

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent-encoded": quote,
    "a URL component": lambda text: quote(text, safe=""),
    "what encodeURIComponent leaves": lambda text: quote(text, safe="!~*'()"),
    "in small letters": lambda text: quote(text).lower(),
    "a form": quote_plus,
    "a form with CRLF": lambda text: quote_plus(text.replace("\n", "\r\n")),
    "encoded twice": lambda text: quote(quote(text)),
    "each byte encoded": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with all letters": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON in JSON": lambda text: json.dumps(json.dumps(text))[3:-3],
    "JSON in a URL": lambda text: quote(json.dumps(text)[1:-1]),
    "UTF-16 escapes": lambda text: "".join(f"\\u{unit:04x}" for unit in memoryview(text.encode("utf-16-le")).cast("H")),
    "HTML": html.escape,
    "HTML by numbers": lambda text: "".join(f"&#{ord(one)};" for one in text),
    "JSON in HTML": lambda text: html.escape(json.dumps(text)[1:-1]),
    "Markdown": lambda text: write_markdown(["block", 0, [text]], links=True, images=True).rstrip("\n"),
    "CSS": lambda text: re.sub(r"[!-,./:-@\[-^`{-~]", r"\\\g<0>", text),
    "hexadecimal": lambda text: text.encode().hex(),
    "the name of a file": lambda text: re.sub(r'["*/:<>?\\|.]', "_", text),
    "without ends of lines": lambda text: text.replace("\n", ""),
}


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2",
        "my_pass*word_",
        "<b>[x](y) # `a` | ~~c~~",
        "p~a!s's\"w\\o/rd & <x>",
        "pässwört€ 😀",
        "one\ntwo",
        "100%25 sure",
        '\\\\"quoted"',
        "x" * 100,
    ],
)
def test_a_secret_is_recognized_in_every_form_that_pages_write(secret):
    secrets = Secrets()
    secrets.add(Secret(f" {secret}\n"))

    for name, form in FORMS.items():
        assert secrets.mask(f"a={form(secret)}&b") == "a=***&b", name
    for before in ("", "u", "us", "user:"):
        encoded = [base64.b64encode(f"{before}{text}, and more".encode()).decode() for text in (secret, "")]
        masked = secrets.mask(encoded[0])
        assert "***" in masked
        assert len(masked) <= len(encoded[1]) + 6  # of its first and last letter a few bits are left


def test_a_page_of_another_encoding_is_masked_too():
    secrets = Secrets()
    secrets.add(Secret("pässwört€"))

    assert secrets.mask("?a=p%E4ssw%F6rt%80") == "?a=***"
    assert secrets.mask("?a=p%E4ssw%F6rt%26%238364%3B") == "?a=***"


@pytest.mark.parametrize(
    ("form", "longest"), [("as it is", 1), ("each byte encoded", 6), ("HTML by numbers", 7), ("UTF-16 escapes", 6)]
)
@pytest.mark.parametrize("mark", ["…", "..."])
def test_what_is_left_of_a_secret_where_a_text_is_cut_is_masked(form, longest, mark):
    secrets = Secrets()
    secrets.add(Secret("hunter&2 xyzzy~é#"))
    whole = FORMS[form]("hunter&2 xyzzy~é#")

    assert secrets.mask(f"it is {whole[:60]}{mark}{whole[-60:]} hunt hu{mark}#") == f"it is ***{mark}*** hunt hu{mark}#"
    for length in range(4 * longest, len(whole) - 4 * longest):
        assert secrets.mask(f"it is {whole[:length]}{mark}{whole[length:]} or") == f"it is ***{mark}*** or", length


def test_what_is_left_of_a_secret_in_an_address_that_ends_at_its_hash_is_masked():
    secrets = Secrets()
    secrets.add(Secret("my-pass#word"))
    secrets.add(Secret("it's secret"))

    assert secrets.mask("404 GET http://a/?q=my-pass") == "404 GET http://a/?q=***"
    assert secrets.mask("('http://a/my%2Dpass', 1)") == "('http://a/***', 1)"
    assert secrets.mask("#word") == "***"
    assert secrets.mask("http://a/my-pass/b my-pass") == "http://a/my-pass/b my-pass"
    assert secrets.mask("http://a/?q=hunter http://a/?q=it&#39;s%20se&amp;x") == (
        "http://a/?q=hunter http://a/?q=it&#39;s%20se&amp;x"
    )
    secrets.add(Secret("swordfish's"))
    assert secrets.mask("http://a/?q=swordfish&") == "http://a/?q=***"


def test_short_secrets_do_not_tear_words_apart():
    secrets = Secrets()
    secrets.add(Secret("cat"))
    secrets.add(Secret("long enough"))
    secrets.add(Secret(" \n"))

    assert secrets.mask("a cat in a category, long enough, q%3Dcat") == "a *** in a category, ***, q%3D***"
    assert secrets.mask_all({"cat": ["cat", 1], "of": ("cat",)}) == {"***": ["***", 1], "of": ("***",)}


@pytest.mark.parametrize(
    "text", ["\\" * 20_000, "&amp;" * 10_000, "%25" * 20_000, "+ " * 30_000, "%5C" * 10_000, "…" * 20_000]
)
def test_no_text_takes_long_to_be_searched(text):
    secrets = Secrets()
    secrets.add(Secret("\\\\\" & '%25 x/"))

    begun = time.process_time()
    assert secrets.mask(text) == text
    assert time.process_time() - begun < 3


def test_passwords_of_addresses_are_masked_in_what_is_said_of_pages():
    secrets = Secrets()

    assert (
        secrets.mask_told("200 GET http://ann:pa55@host/ and x://b:c@d")
        == "200 GET http://ann:***@host/ and x://b:***@d"
    )
    assert (
        secrets.mask_told("http://host:80/a@b ws://u@h/ http://h/?a:b@c")
        == "http://host:80/a@b ws://u@h/ http://h/?a:b@c"
    )
    assert secrets.mask_all("http://ann:pa55@host/") == "http://ann:pa55@host/"


TELL = """() => {
  const text = document.querySelector('#name').value;
  console.log('it is ' + text, { text });
  console.log(btoa(unescape(encodeURIComponent('user:' + text))));
  document.title = text;
  fetch('/y?html=' + text.replace('&', '&amp;').replace("'", '&#39;')).then(() => {});
  history.replaceState(null, '', '?q=' + encodeURIComponent(text) + '#' + text);
  fetch('/x?' + new URLSearchParams({ q: text }) + JSON.stringify(text)).then(() => {});
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob(['x']));
  link.download = text + '.txt';
  link.textContent = text;
  document.body.prepend(link);
  link.click();
  setTimeout(() => { throw new Error(text) });
  return { [text]: [text] };
}"""


def test_a_secret_is_in_nothing_that_is_said_of_a_page(browser, site):
    secret = "hunter&2!_~ü\"\\'_<b>"
    browser.goto(f"{site.url}/form")
    first = len(browser.heard.entries)
    browser.execute("evaluate_js", code="void setTimeout(() => document.title = prompt('Who?'))")
    browser.until(lambda: browser.browser._tabs.latest.dialog, "there is no dialog")
    prompted = browser.do("handle_dialog", text=Secret(secret))
    assert browser.js(f"document.title === {json.dumps(secret)}")
    filled = browser.do("fill", selector="#name", value=Secret(f"{secret}\n", name="code"))
    told = browser.do("evaluate_js", code=TELL)
    browser.until(lambda: any(e.kind == "download" for e in browser.heard.entries[first:]), "no download is logged")
    browser.until(
        lambda: any(e.text.startswith("404 GET") and "/y" in e.text for e in browser.heard.entries[first:]),
        "no request is logged",
    )
    browser.until(lambda: any("uncaught" in e.text for e in browser.heard.entries[first:]), "no error is logged")
    seen = browser.observe()
    read = browser.run(browser.browser.scrape(only_main_content=False))
    cut = [browser.observe(max_chars=length) for length in range(1, 60)]
    with pytest.raises(BrowserError) as error:
        browser.observe(scope=f"text={secret}!")
    led = browser.do("goto", url=f"{site.url}/plain?{'x' * 290}{quote(secret)}")
    missed = browser.execute("goto", url=f"gopher://{secret}")
    browser.execute("evaluate_js", code=f"void setTimeout(() => prompt({json.dumps(secret)}, {json.dumps(secret)}))")
    browser.until(lambda: browser.browser._tabs.latest.dialog, "there is no dialog")
    waiting = browser.observe()
    answered = browser.do("handle_dialog", accept=True)

    entries = browser.heard.entries[first:]
    results = [prompted, read, filled, told, led, missed, answered]
    everything = repr([entries, seen, cut, waiting, error.value.message, error.value.data, results])
    for part in ("unter", secret, base64.b64encode(secret.encode()).decode()[4:-4]):
        assert part not in everything
    assert seen.title == "***"
    assert seen.url == f"{site.url}/form?q=***#***"
    assert (seen.tabs[0].title, seen.tabs[0].url) == (seen.title, seen.url)
    assert [(one.role, one.name, one.selector) for one in seen.elements if one.name == "***"] == [("link", "***", None)]
    assert (waiting.dialog.message, waiting.dialog.default) == ("***", "***")
    assert told.data == {"***": ["***"]}
    assert {entry.kind for entry in entries} >= {"action", "console", "network", "tab", "dialog", "download"}
    assert [path.name for path in (browser.folder / "downloads").iterdir()] == ["***.txt"]
    fill = next(entry for entry in entries if entry.data.get("action", {}).get("type") == "fill")
    assert fill.data["action"]["value"] == {"secret": "***", "name": "code"}
    assert msgspec.json.encode(entries)


SHOW_LONG = """text => {
  console.log({ a: text }, [text], new Error(text));
  const link = document.createElement('a');
  link.href = '/x?q=' + text + '&' + btoa(text);
  link.title = 'x'.repeat(200);
  link.textContent = text;
  document.body.replaceChildren(link);
  return [link, new URL(link.href), Symbol(text), Symbol('x'.repeat(280) + text), new Error(text), link.firstChild];
}"""


def test_of_a_long_secret_no_part_is_said_where_browsers_and_actions_cut_texts(browser, site):
    token = "eyJ" + "".join(f"{number}aBc-" for number in range(100))
    browser.goto(f"{site.url}/form")
    browser.do("fill", selector="#name", value=Secret(token))
    first = len(browser.heard.entries)
    told = browser.do("evaluate_js", code=f"({SHOW_LONG})(document.querySelector('#name').value)")
    refused = browser.execute("fill", selector="a", value="x")
    browser.until(lambda: any(e.kind == "console" for e in browser.heard.entries[first:]), "nothing is logged")

    everything = repr([told, refused, browser.observe(interactive_only=True), browser.heard.entries[first:]])
    for part in ("eyJ", "aBc", base64.b64encode(token.encode()).decode()[:6]):
        assert part not in everything
    (logged,) = [entry.text for entry in browser.heard.entries[first:] if entry.kind == "console"]
    assert logged.startswith("log: {a: ***…***}")


def test_an_editor_holds_a_secret_itself_and_pictures_do_not_show_it(browser):
    pictures = []
    for secret in ("my-pass word", "another-word"):
        browser.goto("data:text/html,<style>* { font: 16px monospace }</style><div id=e contenteditable></div>")
        assert browser.do("fill", selector="#e", value=Secret(secret)).message == "Filled #e"
        assert browser.js(f"[e.innerText, e.textContent].every(text => text === {json.dumps(secret)})")
        browser.do("press_key", key="Control+A")
        pictures.append(browser.run(browser.browser.screenshot()))
    assert pictures[0] == pictures[1]


def test_a_secret_that_is_typed_hides_the_field_that_has_the_focus_and_nothing_else(browser):
    empty = "<iframe name=empty srcdoc='<script>document.documentElement.remove()</script>'></iframe>"
    fields = "<iframe srcdoc='<input id=inner><input id=other>'></iframe>"
    browser.goto(f"data:text/html,<p>Text</p><input id=i>{fields}{empty}")
    browser.js("addEventListener('keydown', () => {}); 1")
    browser.do("type", value=Secret("to nobody"))
    browser.do("click", selector="#i")
    browser.do("click", selector="iframe >> nth=0 >> internal:control=enter-frame >> #inner")
    browser.do("type", value=Secret("swordfish"))

    styles = "[...document.querySelectorAll('*')].map(one => one.getAttribute('style')).filter(Boolean)"
    assert browser.js(f"[{styles}, document.querySelector('iframe').contentWindow.eval(`{styles}`), i.value]") == [
        [],
        ["-webkit-text-security: disc;"],
        "",
    ]
