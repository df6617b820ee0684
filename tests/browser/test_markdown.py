"""Pages as Markdown: what people read on them, in the order and apart as they see it."""

import json
from pathlib import Path

import pytest

from tests.bench.markdown import compare, pages

FOLDER = Path(__file__).parent / "markdown"

SPAN = "<style>.c span { display: block }</style>"


@pytest.fixture(scope="module")
def plain(shared, site):
    """One page, which the tests write anew."""
    shared.goto(f"{site.url}/plain")
    return shared


def scrape(browser, **options):
    return browser.run(browser.browser.scrape(**options))


def show(browser, html):
    browser.js(f"document.open(), document.write({json.dumps(html)}), document.close()")


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        # What the style sets apart.
        (
            f"{SPAN}<div class=c><span>Mini</span><span>39,90 €</span><span>In stock</span></div>",
            "Mini\n\n39,90 €\n\nIn stock",
        ),
        (
            "<div style='display: flex'><span>Mini</span><span>39,90 €</span><span>In stock</span></div>",
            "Mini 39,90 € In stock",
        ),
        ("<div style='display: flex'><span>$</span><span>19</span><span>.99</span></div>", "$19.99"),
        (
            "<div style='display: grid; grid-template-columns: 1fr 1fr'><i>A</i><b>1</b><i>B</i><b>2</b></div>",
            "*A* **1**  \n*B* **2**",
        ),
        ("<p>A<button>Save</button><span style='margin-left: 9px'>new</span></p>", "A Save new"),
        (
            "<style>u { padding: 2px 8px; border: 1px solid }</style>Tags: <u>New</u><u>Sale</u><u>29</u>, <u>x</u>y",
            "Tags: New Sale 29, x y",
        ),
        (
            "<style>a { padding: 0 12px }</style><div><a href='/a'>Home</a><a href='/b'>Cart</a></div>",
            "[Home](http://127.0.0.1/a) [Cart](http://127.0.0.1/b)",
        ),
        ("<style>u { padding: 0 1px }</style><p>high<u>light</u>ed <u>$</u><u>5</u>", "highlighted $5"),
        ("<p>One.<br><br>Two.<br>More.<br> &nbsp;<br>Three", "One.\n\nTwo.  \nMore.\n\nThree"),
        ("<p><b>One.<br><br>Two.</b><br><br><a href='/a'>x<br><br>y</a>", "**One.**\n\n**Two.**\n\n[x  \ny](http://127.0.0.1/a)"),
        ("<ul><li>a<br><br>b<li>c</ul><h2>T<br><br>U</h2>", "- a\n\n  b\n\n- c\n\n## T U"),
        ("<p>First&shy;para", "Firstpara"),
        ("<dl><dt>Tea<dt>Chai<dd>A drink<dt>Mug<dd>For it</dl>", "**Tea, Chai**: A drink\n\n**Mug**: For it"),
        ("<h1><i style='display: inline-block; font-style: normal'>H</i>ello</h1>", "# Hello"),
        ("<style>u::before { content: '$' }</style><p><u>5</u></p>", "$5"),
        ("<p style='white-space: pre-line'>one\ntwo</p>", "one  \ntwo"),
        # Tables.
        (
            "<table><tr><th>A<th>B<th>C<tr><td>a|b<td rowspan=2>r<td>x<br>y<tr><td>c<td>d<tr><td colspan=3>w</table>",
            "| A | B | C |\n| --- | --- | --- |\n| a\\|b | r | x<br>y |\n| c | r | d |\n| w |  |  |",
        ),
        (
            "<table><tr><th>A<th>B<tr><td>1<td><table><tr><td>x<td>2<tr><td>y<td>3</table></table>",
            "| A | B |\n| --- | --- |\n| 1 | x 2<br>y 3 |",
        ),
        (
            "<table><thead><tr><th rowspan=2>S<th colspan=2>Catch<tr><th>2024<th>2025"
            "<tbody><tr><td>Perch<td>3<td>2</table>",
            "| S | Catch 2024 | Catch 2025 |\n| --- | --- | --- |\n| Perch | 3 | 2 |",
        ),
        ("<table><tr><td><h2>Layout</h2><td><p>not data</table>", "## Layout\n\nnot data"),
        (
            "<div role=table><div role=row><b role=columnheader>A</b><b role=columnheader>B</b></div>"
            "<div role=row><i role=cell>1</i><i role=cell>2</i></div></div>",
            "| A | B |\n| --- | --- |\n| 1 | 2 |",
        ),
        # Links around blocks.
        (
            "<a href='/c'><img alt=pic src='/p'><h3>Card</h3><p>Text</p></a>",
            "### [Card](http://127.0.0.1/c)\n\nText",
        ),
        ("<a href='/c'><div>Card</div><p>Text</p></a>", "[Card](http://127.0.0.1/c)\n\nText"),
        ("<a href='/c'><img alt='A leaf' src='/p'></a>", "[A leaf](http://127.0.0.1/c)"),
        # Code.
        (
            "<div class='highlight-python'><pre>a\n\n\n```\nb\n</pre></div>",
            "````python\na\n\n\n```\nb\n````",
        ),
        (
            "<pre><code class='lang-sh'><b style='display: block'>x</b><b style='display: block'>y</b></code></pre>",
            "```sh\nx\ny\n```",
        ),
        ("<p><code>a `b`</code></p>", "`` a `b` ``"),
        # Fields.
        (
            "<label>Name <input value=Ada></label><label>Pet <select><option>Cat<option selected>Dog</select></label>"
            "<textarea>note</textarea><input type=password value=hunter2><input type=hidden value=no>",
            "Name Ada Pet Dog note •••",
        ),
        ("<ul><li><input type=checkbox checked>done<li><input type=checkbox>todo</ul>", "- [x] done\n- [ ] todo"),
        ("<details><summary>More?</summary>Yes, <b>more</b>.</details>", "More?\n\nYes, **more**."),
        # Formulas.
        (
            "<p>So <math><munderover><mo>∑</mo><mrow><mi>k</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover>"
            "<msub><mi>a</mi><mi>k</mi></msub></math> and <math><mtable>"
            "<mtr><mtd><mi>x</mi></mtd><mtd><mn>1</mn></mtd></mtr><mtr><mtd><mi>y</mi></mtd><mtd><mn>2</mn></mtd></mtr></mtable></math></p>",
            "So $∑_(k=1)^na_k$ and $x 1; y 2$",
        ),
        # Texts that would mean something else.
        (
            "<p># no<p>1. no<p>- no<p>*no* _no_ snake_case 2 * 3 `no` &lt;b>",
            "\\# no\n\n1\\. no\n\n\\- no\n\n\\*no\\* \\_no\\_ snake_case 2 * 3 \\`no\\` \\<b>",
        ),
        ("<p>a<b> bold </b>b<b>one</b><b>two</b><i></i></p>", "a **bold** b**onetwo**"),
        ("<p><b>very <strong>bold</strong></b><h2><b>Title</b></h2><p>* note", "**very bold**\n\n## Title\n\n\\* note"),
        ("<h2 id=a><a href='#a'>Title</a> <a href='#a'>¶</a>&nbsp;</h2>", "## Title"),
        ("<ol start=3><li>x<li value=9>y<ul><li>z</ul></ol>", "3. x\n9. y\n   - z"),
        ("<p>m<sup>2</sup> H<sub>2</sub>O 4<sup>th</sup></p>", "m² H₂O 4th"),
        (
            "<p hidden>no</p><template>no</template>"
            "<p style='visibility: hidden'>no<b style='visibility: visible'>yes</b></p>",
            "**yes**",
        ),
        # Frames.
        (
            "<frameset cols='50%,*'><frame src='data:text/html,<p>left'><frame src='data:text/html,<h1>right'>",
            "left\n\n# right",
        ),
        ("<p>out</p><iframe sandbox srcdoc='<p>in the sandbox'></iframe>", "out\n\nin the sandbox"),
    ],
)  # fmt: skip
def test_what_a_page_shows(plain, site, html, markdown):
    show(plain, html)
    if "frame" in html:
        plain.do("wait", load_state="load")

    assert scrape(plain).replace(site.url, "http://127.0.0.1") == markdown + "\n"


ARTICLE = "<nav><a href=/>Home</a><a href=/b>Menu</a></nav>"


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        (
            f"{ARTICLE}<div><article><h3>One</h3><p>{'long ' * 80}</p></article><h3>Two</h3><h3>Three</h3></div>",
            f"### One\n\n{'long ' * 79}long\n\n### Two\n\n### Three",
        ),
        (f"{ARTICLE}<main>Thank you</main><aside>{'Others bought this. ' * 30}</aside>", "Thank you"),
        (
            "<article><p>Text<blockquote><p>Quoted<footer>Source</footer></blockquote><footer>Corrected</footer></article>"
            "<footer>Imprint</footer>",
            "Text\n\n> Quoted\n>\n> Source\n\nCorrected",
        ),
        (
            f"{ARTICLE}<header><h1>A title</h1></header><main><p>Text</main><title>A title - Site</title>",
            "# A title\n\nText",
        ),
        ("<blockquote>Quoted<footer>Source</footer></blockquote><footer>Imprint</footer>", "> Quoted\n>\n> Source"),
        (
            "<div class=header><a href=/>Logo</a></div><div class=content><h1>Shoe</h1><div class=header>Inner</div>"
            f"<p>{'word ' * 20}</div><div id=site-footer>Imprint</div>",
            f"# Shoe\n\nInner\n\n{'word ' * 19}word",
        ),
        (f"<div class=page-header><h1>Title</h1></div><p>{'word ' * 20}", f"# Title\n\n{'word ' * 19}word"),
        ("<div class=footer>Only this</div>", "Only this"),
        ("<nav>Only this</nav>", "Only this"),
        ("<main class=sidebar>Only that</main><p>Around</p>", "Only that"),
        (
            "<div id=cookie-banner role=dialog>We use cookies</div><div class='ad'>Buy</div><p>Text",
            "Text",
        ),
        # What is a sentence in an id, or part of a name, is no sign of noise.
        (
            "<h1>One</h1><section id=sharing-with-others><p>Text</section>"
            f"<div class='flex--gutter'><p>{'b ' * 40}</div>",
            f"# One\n\nText\n\n{'b ' * 39}b",
        ),
        # Where long prose says what the content is, lists of links beside it are none.
        (
            "<div><ul><li><a href=/a>News</a><li><a href=/b>Shop</a></ul></div>"
            f"<div><p>{'prose ' * 60}<p>{'more ' * 60}</div>"
            "<div><p>Two comments</div><table><tr><td><a href=/c>Next</a><td><a href=/d>Last</a></table>",
            f"{'prose ' * 59}prose\n\n{'more ' * 59}more\n\nTwo comments",
        ),
    ],
)  # fmt: skip
def test_the_content_is_kept_whole_and_what_stands_around_it_left_out(plain, html, markdown):
    show(plain, html)

    assert scrape(plain) == markdown + "\n"


def test_what_a_page_has_made_of_the_language_does_not_matter(plain):
    show(
        plain,
        "<script>Array.prototype.toJSON = String.prototype.toJSON = () => 'no'; window.Node = class {}</script>"
        '<p>One \\ "two"</p><p></p><form><input name=id value=3></form>'
        "<script>document.querySelectorAll('p')[1].textContent = '\\ud800 lone \U0001f600'</script>",
    )

    assert scrape(plain) == 'One \\ "two"\n\n\ufffd lone \U0001f600\n\n3\n'
    plain.js("delete Array.prototype.toJSON; delete String.prototype.toJSON")


def test_a_selector_gives_all_that_it_finds_in_all_frames(plain):
    items = "<ol><li>a<ul><li>b</ul><li hidden>no<li>c</ol>"
    show(plain, f"{items}<iframe srcdoc='<ul><li>d</ul>'></iframe>")
    plain.do("wait", text="d")

    assert scrape(plain, selector="li") == "1. a\n   - b\n3. c\n\n- d\n"
    assert scrape(plain, selector="ul") == "- b\n\n- d\n"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.html")))
def test_a_real_page_reads_as_people_would_write_it_down(shared, site, name):
    shared.goto(f"{site.url}/markdown/{name}")

    score = compare((FOLDER / f"{name}.md").read_text(), scrape(shared))

    assert score.recall >= 0.97
    assert score.precision >= 0.93


def test_the_corpus_is_whole():
    assert len(pages()) == 30
    assert all(page.with_suffix(".html").is_file() for page in pages())
