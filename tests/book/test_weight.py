"""What a reader waits for: the bytes of a lecture's first view, and the time until it is drawn."""

from __future__ import annotations

import gzip
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser

from tests.book.visits import PHONE, Visit, stand_still

pytestmark = pytest.mark.browser
MOST = 1.5e6
TEXT = {".css", ".html", ".js", ".svg"}  # servers of pages send these packed


def sent(file: Path) -> int:
    content = file.read_bytes()
    return len(gzip.compress(content)) if file.suffix in TEXT else len(content)


def test_the_first_view_of_each_lecture_is_light_and_soon_drawn(
    visits: dict[str, Visit], lectures: list[Path]
) -> None:
    found = {lecture.stem: visits[f"nbs/{lecture.stem}.html"] for lecture in lectures}
    weights = {}
    for name, visit in found.items():
        files = {Path(unquote(urlsplit(url).path)) for url in visit.first_view if url.startswith("file:")}
        weights[name] = sum(map(sent, files))
    assert min(weights.values()) > 3e5, "this counts too little"
    assert max(weights.values()) <= MOST, weights
    times = [visit.painted for visit in found.values()]
    assert sorted(times)[len(times) // 2] < 2000, times  # the median: one page may meet a busy machine


def test_every_figure_comes_when_the_reader_does(browser: Browser, html: Path):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto((html / "nbs" / "06_planar_flows.html").as_uri())
    figures = page.locator("article img")
    assert figures.count() >= 5
    for k in range(figures.count()):
        figures.nth(k).scroll_into_view_if_needed()
        page.wait_for_function("k => document.querySelectorAll('article img')[k].naturalWidth > 0", arg=k)
    page.close()


@pytest.mark.parametrize("size", [{"width": 1200, "height": 900}, PHONE], ids=["desk", "phone"])
def test_nothing_jumps_when_a_figure_comes(browser: Browser, html: Path, size):
    page = browser.new_page(viewport=size)
    stand_still(page, (html / "nbs" / "06_planar_flows.html").as_uri())
    shape = """() => Array.from(document.querySelectorAll("article :is(img, p, h2)"), (part) => {
      const { top, width, height } = part.getBoundingClientRect();
      return [top + scrollY, width, height].map(Math.round);
    })"""
    before = page.evaluate(shape)
    page.evaluate("""() => {
      const images = document.querySelectorAll("article img");
      images.forEach((image) => (image.loading = "eager"));
      return Promise.all(Array.from(images, (image) => image.decode()));
    }""")
    assert page.evaluate(shape) == before
    stretched = page.evaluate("""() => {
      const own = (image) => image.naturalWidth / image.naturalHeight;
      const odd = (image) => Math.abs(image.width / image.height / own(image) - 1) > 0.01;
      return Array.from(document.querySelectorAll("article img")).filter(odd).map((image) => image.alt);
    }""")
    assert not stretched
    page.close()


def test_icons_need_no_script(browser: Browser, html: Path):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto((html / "nbs" / "06_planar_flows.html").as_uri())
    assert not page.locator("script[src*=fontawesome]").count()
    page.evaluate("document.fonts.ready")
    content = page.locator(".fa-expand").first.evaluate("icon => getComputedStyle(icon, '::before').content")
    assert content not in ("none", '""')
    assert page.evaluate("""document.fonts.check('900 16px "Font Awesome 6 Free"')""")
    page.close()
