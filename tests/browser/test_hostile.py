"""Pages that replace or remove what is built into their own world: all is read and done as on any other page."""

from typing import Any

from runtimed.actions import Target

PAGE = """<!doctype html><title>Shop</title><main><h1>Tea</h1><p>Green <b>tea</b></p>
<table><tr><th>Size<th>Price<tr><td>100 g<td class=price>12,50 €</table>
<input aria-label=Name><input id=day type=date><div id=note contenteditable>none</div>
<select aria-label=Size><option>small<option>large</select>
<label><input type=checkbox style="opacity: 0; position: absolute; left: -99px">Gift</label>
<input type=file aria-label=Receipt><button onclick="said.textContent = 'bought'">Buy</button><p id=said>nothing</p>
<div id=box draggable=true>Box</div><div id=zone style="height: 99px">Zone</div>
<iframe srcdoc="<p>In a frame</p>"></iframe><div style="height: 3000px"></div>
<script>
  zone.ondragover = event => event.preventDefault();
  zone.ondrop = event => {
    event.preventDefault();
    zone.textContent += ' ' + (event.dataTransfer.files[0]?.name ?? 'box');
  };
</script>"""

SPOIL = """
  const fail = () => { throw new Error('spoilt') };
  for (const one of [Array, String, Object, Map, Set, Element, Node, Document, EventTarget])
    for (const name of Object.getOwnPropertyNames(one.prototype))
      if (name !== 'constructor' && typeof Object.getOwnPropertyDescriptor(one.prototype, name).value === 'function')
        one.prototype[name] = fail;
  for (const name of ['keys', 'entries', 'assign', 'getPrototypeOf']) Object[name] = fail;
  delete window.eval;
  window.Function = window.JSON = window.Map = window.Set = window.RegExp = window.Error = window.Symbol = null;
  window.getComputedStyle = window.setTimeout = window.MutationObserver = window.Event = window.Math = null;
"""

WANTED = {
    "price": {"type": "number", "selector": ".price"},
    "rows": {"type": "array", "selector": "tr", "items": {"type": "string"}},
    "bought": {"type": "boolean", "selector": "#nothing"},
}


STEPS: list[tuple[str, dict[str, Any]]] = [
    ("click", {"role": "button", "name": "Buy"}),
    ("click", {"x": 1, "y": 1}),
    ("wait", {"text": "bought"}),
    ("fill", {"role": "textbox", "name": "Name", "value": "Ann"}),
    ("fill", {"selector": "#day", "value": "2026-11-29"}),
    ("type", {"selector": "#note", "value": "soon"}),
    ("clear", {"selector": "#note"}),
    ("select_option", {"role": "combobox", "name": "Size", "value": "large"}),
    ("check", {"role": "checkbox", "name": "Gift"}),
    ("upload_file", {"selector": "input[type=file]", "path": ...}),
    ("drag", {"selector": "#box", "to": Target(selector="#zone")}),
    ("drop_files", {"selector": "#zone", "path": ...}),
    ("hover", {"selector": "#zone"}),
    ("scroll", {"amount": 300}),
    ("scroll", {"selector": "#zone", "amount": 10}),
    ("type", {"value": "a"}),
]
"""Actions on it; `...` stands for the path of a file."""


def experience(browser, site, spoil, file):
    """Do all that can be done on the page, and return what is told of it."""
    browser.goto(f"{site.url}/plain")
    page = browser.browser._tabs.latest.page
    browser.run(page.set_content(PAGE))
    browser.js(f"void setTimeout(() => {{ {spoil}; said.textContent = 'ready' }})")
    browser.do("wait", text="ready")
    browser.do("wait", text="In a frame")
    told = [[(one.role, one.name, one.selector) for one in browser.observe().elements]]
    told += [browser.run(browser.browser.scrape()), browser.run(browser.browser.scrape(selector="p"))]
    told.append(browser.run(browser.browser.scrape(schema={"type": "object", "properties": WANTED})))
    told += [
        browser.execute(kind, **{key: str(file) if value is ... else value for key, value in fields.items()}).message
        for kind, fields in STEPS
    ]
    told.append(browser.do("download_file").data["size"])
    told.append(browser.run(browser.browser.scrape(selector="#zone")))
    told.append(browser.run(browser.browser.screenshot(Target(selector="#box")))[:8])
    return told


def test_a_page_that_spoils_what_is_built_in_is_read_and_operated_as_any_other(browser, site, tmp_path):
    file = tmp_path / "receipt.txt"
    file.write_text("paid")

    told = [experience(browser, site, spoil, file) for spoil in ("", SPOIL)]

    assert told[0] == told[1]
    assert told[0][3] == {"price": 12.5, "rows": ["Size\tPrice", "100 g\t12,50 €"], "bought": False}
    assert told[0][4:] == [
        'Clicked button "Buy"',
        "Clicked the point 1, 1",
        "The text 'bought' is there",
        'Filled textbox "Name"',
        "Filled #day",
        "Typed into #note",
        "Cleared #note",
        'Selected large in combobox "Size"',
        'Checked checkbox "Gift"',
        "Gave receipt.txt to input[type=file]",
        "Dragged #box to #zone",
        "Dropped receipt.txt on #zone",
        "The pointer is over #zone",
        "Scrolled by 300 px",
        "There is nothing more to scroll in #zone",
        "Nothing has the focus, and the page does not listen for keys: name the field, or click it first",
        73,
        "Zone box receipt.txt\n",
        b"\x89PNG\r\n\x1a\n",
    ]
