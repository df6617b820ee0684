"""Every link of the pages leads somewhere, and every page can be found."""

from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links


@pytest.mark.parametrize("name", PAGES)
def test_every_link_resolves(name):
    page = PAGES[name]
    broken = []
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https", link
            assert parts.netloc, link
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (parts.fragment and unquote(parts.fragment) not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_leads_to_every_page_and_stays_short():
    readme = PAGES["README.md"]
    reached = {(readme.parent / link).resolve() for link in links(readme)}
    assert {path for name, path in PAGES.items() if name != "README.md"} <= reached
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_package_ships_what_its_readme_links_to():
    (include,) = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("include = ")]
    folders = {link.partition("/")[0] for link in links(PAGES["README.md"]) if not urlsplit(link).scheme}
    assert [folder for folder in folders if f'"{folder}"' not in include] == []


def test_pictures_are_small_and_shown():
    pictures = {path.resolve() for path in (ROOT / "docs" / "images").iterdir()}
    shown = {(page.parent / link).resolve() for page in PAGES.values() for link in links(page)}
    assert pictures <= shown
    assert [path.name for path in pictures if path.stat().st_size > 150 * 2**10] == []
