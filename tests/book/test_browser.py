"""The built book in headless Chromium: offline, readable on a phone, light and dark."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.book.visits import Visit, listen

pytestmark = pytest.mark.browser


def leaving(visit: Visit, home: str) -> list[str]:
    """The requests that went anywhere but home; data and blob addresses carry their own content."""
    return [url for url in visit.requests if not url.startswith((home, "data:", "blob:"))]


@pytest.fixture
def server(html: Path) -> Iterator[str]:
    """The book on a local server, as ``make serve`` shows it."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(html)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def gathered(visits: dict[str, Visit], what: str) -> list[str]:
    """What was measured under one name, each with its page."""
    return [f"{name}: {item}" for name, visit in visits.items() for item in visit.shown[what]]


def test_no_request_leaves_the_book(visits: dict[str, Visit]) -> None:
    away = [url for visit in visits.values() for url in leaving(visit, "file://")]
    assert not away, f"The book must read offline, and pages asked for {away}"
    assert any("mathjax" in url for visit in visits.values() for url in visit.requests)


def test_no_page_reports_an_error(visits: dict[str, Visit]) -> None:
    errors = [f"{name}: {error}" for name, visit in visits.items() for error in visit.errors]
    assert not errors, "\n".join(errors)


def test_formulas_are_typeset(visits: dict[str, Visit]) -> None:
    assert sum(visit.shown["formulas"] for visit in visits.values()) > 100
    raw = gathered(visits, "raw")
    assert not raw, "Formulas that MathJax left as text:\n" + "\n".join(raw)
    wrong = gathered(visits, "wrong")
    assert not wrong, "Formulas that MathJax cannot read:\n" + "\n".join(wrong)


def test_tagged_formulas_show_their_number(visits: dict[str, Visit]) -> None:
    unnumbered = gathered(visits, "unnumbered")
    assert not unnumbered, "\n".join(unnumbered)


def test_nothing_is_wider_than_a_phone(visits: dict[str, Visit]) -> None:
    wide = [
        f"{name}: {visit.shown['width']} px" for name, visit in visits.items() if visit.shown["width"] > 390
    ]
    assert not wide, "Pages that scroll sideways:\n" + "\n".join(wide)
    cut = gathered(visits, "cut")
    assert not cut, "Cut off at 390 px, without a frame to scroll in:\n" + "\n".join(cut)


def test_figures_keep_white_paper_in_the_dark(visits: dict[str, Visit]) -> None:
    assert any(visit.shown["figures"] for visit in visits.values())
    clear = gathered(visits, "not_white")
    assert not clear, "\n".join(clear)


@pytest.mark.parametrize("opened", ["from a file", "from a server"])
def test_search_finds_a_word(opened: str, browser: Browser, html: Path, server: str) -> None:
    home = f"{html.as_uri()}/" if opened == "from a file" else server
    page = browser.new_page()
    visit = listen(page)
    page.goto(f"{home}search.html?q=determinant")
    page.wait_for_selector("#search-results li a", timeout=15_000)
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    page.wait_for_timeout(300)  # extracts are fetched after the titles are shown
    page.close()
    assert all(link.startswith(home) for link in found)
    assert any("book/" in link for link in found)
    assert not leaving(visit, home)
    assert not visit.errors


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("7.13", "nbs/07_coupling_flows.html#formula-7-13"),
        ("6.1", "nbs/06_planar_flows.html#formula-6-1"),
        ("(6.3)", "nbs/06_planar_flows.html#formula-6-3"),
        ("eq 6.3", "nbs/06_planar_flows.html#formula-6-3"),
        ("Maximum likelihood", "nbs/05_maximum_likelihood.html#maximum-likelihood"),
        ("ActNorm", "book/api.html#flowlib.layers.glow.ActNorm"),
        ("fit", "book/api.html#flowlib.train.fit"),
        ("pushforward", "book/glossary.html#term-pushforward"),
        ("bits per dimension", "book/glossary.html#term-bits-per-dimension"),
    ],
)
def test_search_puts_numbers_names_and_terms_first(
    words: str, first: str, browser: Browser, html: Path
) -> None:
    page = browser.new_page()
    page.goto(f"{html.as_uri()}/search.html?q={words}")
    page.wait_for_selector("#search-results li a", timeout=15_000)
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    page.close()
    assert [link.removeprefix(f"{html.as_uri()}/").partition("?")[0] for link in found][:1] == [first]


def test_names_that_a_search_finds_are_told_apart(browser: Browser, html: Path) -> None:
    page = browser.new_page()
    page.goto(f"{html.as_uri()}/search.html?q=planar")
    page.wait_for_selector("#search-results li a >> text=PlanarStack: API reference", timeout=15_000)
    assert not page.locator("#search-results li a").get_by_text("API reference", exact=True).count()
    page.close()


def test_paper_is_white_in_the_dark(browser: Browser, html: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto((html / "book" / "how_to.html").as_uri())
    theme = "document.documentElement.dataset.theme"
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.printed = {theme} }})")
    before = page.evaluate(theme)
    page.pdf()
    assert (before, page.evaluate("window.printed"), page.evaluate(theme)) == ("dark", "light", "dark")
    page.close()


def test_a_search_starts_from_any_page(browser: Browser, html: Path) -> None:
    page = browser.new_page()
    page.goto((html / "book" / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("jacobian")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a", timeout=15_000)
    page.close()


def test_the_reader_can_switch_to_dark(browser: Browser, html: Path) -> None:
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    page.goto((html / "book" / "index.html").as_uri())
    theme = "() => document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    for _ in range(3):  # the button goes round light, dark and the system's choice
        page.locator("button.theme-switch-button:visible").first.click()
        if page.evaluate(theme) == "dark":
            break
    assert page.evaluate(theme) == "dark"
    context.close()


def test_the_front_door_opens_the_start_page(browser: Browser, html: Path) -> None:
    page = browser.new_page()
    page.goto((html / "index.html").as_uri())
    page.wait_for_url("**/book/index.html")
    doors = page.eval_on_selector_all(".sd-card a.sd-stretched-link", "links => links.length")
    page.close()
    assert doors == 3
