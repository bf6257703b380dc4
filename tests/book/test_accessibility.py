"""WCAG 2.2 AA on every page, by axe-core: light, dark and on a phone. And a reader with a keyboard alone."""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, TimeoutError

from tests.book.conftest import PHONE, settle

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("book")]

DESK = {"width": 1280, "height": 900}
SPECIMENS = (Path(__file__).parent / "specimens.js").read_text("utf-8")
AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
STILL = "* { animation: none !important; transition: none !important; scroll-behavior: auto !important; }"
# the theme lets wide code and tables be scrolled by keyboard, some time after the window has changed
REACHED = """() => Array.from(document.querySelectorAll('pre, .pst-scrollable-table-container'))
  .every((wide) => wide.scrollWidth <= wide.clientWidth || wide.tabIndex === 0)"""
AA = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# contrast is the dearest rule by far: it judges each kind of text once
JUDGE = """async (tags) => {
  const resultTypes = ["violations"];
  const found = await axe.run("[data-text]", { runOnly: ["color-contrast"], resultTypes });
  const rules = { "color-contrast": { enabled: false } };
  const more = tags.length && (await axe.run(document, { runOnly: tags, rules, resultTypes }));
  const why = (node) => node.failureSummary.split("\\n")[1];
  const told = (rule, node) => `${rule.id}: ${node.html.slice(0, 120)} (${why(node)})`;
  const violations = [...found.violations, ...(more ? more.violations : [])];
  return violations.flatMap((rule) => rule.nodes.map((node) => told(rule, node)));
}"""


@pytest.fixture(scope="module")
def violations(browser: Browser, html: Path, pages: list[Path]) -> dict[str, list[str]]:
    """What axe-core finds, by theme and screen; each page is opened once."""
    found: dict[str, list[str]] = {"light": [], "dark": [], "phone": []}
    context = browser.new_context(viewport=DESK, color_scheme="light")
    page = context.new_page()
    for name in pages:
        if name == Path("index.html"):  # sends the reader on to the start page
            continue
        page.set_viewport_size(DESK)
        prepare(page, html / name)
        for what, tags in {"light": AA, "dark": [], "phone": AA}.items():
            page.evaluate("theme => (document.documentElement.dataset.theme = theme)", _theme(what))
            if what == "phone":
                page.set_viewport_size(PHONE)
                wait_for_theme(page)
            found[what] += [f"{name}: {problem}" for problem in page.evaluate(JUDGE, tags)]
    context.close()
    return found


def _theme(what: str) -> str:
    return "dark" if what == "dark" else "light"


def opened(page: Page, path: Path) -> None:
    """Open a page, typeset and without anything that moves by itself."""
    page.goto(path.as_uri())
    page.add_style_tag(content=STILL)
    settle(page)


def prepare(page: Page, path: Path) -> None:
    """Open a page with everything unfolded, and axe-core in it."""
    opened(page, path)
    page.evaluate(SPECIMENS)
    wait_for_theme(page)
    page.add_script_tag(content=AXE)


def wait_for_theme(page: Page) -> None:
    """If it takes longer than ten seconds, axe-core says what is missing."""
    with suppress(TimeoutError):
        page.wait_for_function(REACHED, timeout=10_000)


@pytest.mark.parametrize("what", ["light", "dark", "phone"])
def test_no_page_violates_wcag(violations: dict[str, list[str]], what: str) -> None:
    assert not violations[what], "\n".join(violations[what][:40])


def test_axe_sees_what_is_wrong(browser: Browser, html: Path) -> None:
    page = browser.new_page(viewport=DESK)
    prepare(page, html / "book" / "how_to.html")
    wrong = "<img src='x.png'><p data-text style='color: #aaa'>faint</p><dl><dd>no term</dd></dl>"
    page.evaluate("html => document.querySelector('article').insertAdjacentHTML('beforeend', html)", wrong)
    rules = [problem.partition(":")[0] for problem in page.evaluate(JUDGE, AA)]
    page.close()
    assert set(rules) == {"image-alt", "color-contrast", "definition-list"}


# --- by keyboard ------------------------------------------------------------------------------

FOCUS = """() => {
  const at = document.activeElement;
  if (at === document.body) return null;
  at.dataset.order ??= document.querySelectorAll("[data-order]").length;
  const shown = at.closest(".sd-card") ?? at;
  const box = shown.getBoundingClientRect();
  const style = getComputedStyle(shown);
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return {
    what: at.outerHTML.slice(0, 100),
    player: at.tagName === "AUDIO",
    order: Number(at.dataset.order),
    seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
    marked: outlined || style.boxShadow !== "none",
    main: Boolean(at.closest("main")),
  };
}"""


def test_the_first_key_skips_to_the_text(browser: Browser, html: Path) -> None:
    page = browser.new_page(viewport=DESK)
    opened(page, html / "book" / "how_to.html")
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate(
        "() => document.activeElement.parentElement.id + document.activeElement.href"
    )
    assert page.evaluate(FOCUS)["seen"]
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    focus = page.evaluate(FOCUS)
    page.close()
    assert focus["main"], focus


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("name", ["book/index.html", "nbs/01_latent_space.html"])
def test_the_keyboard_goes_through_a_page_and_out_again(
    browser: Browser, html: Path, name: str, size
) -> None:
    """Each stop is in view and marked, none comes twice, and the last leads out of the page."""
    page = browser.new_page(viewport=size)
    opened(page, html / name)
    stops = []
    for _ in range(1000):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus is None:
            break
        if not (focus["player"] and stops[-1]["order"] == focus["order"]):  # the browser's own buttons
            stops.append(focus)
    page.close()
    assert 10 < len(stops) < 1000, "the last stop leads out of the page"
    assert [stop["order"] for stop in stops] == list(range(len(stops)))
    assert not [stop["what"] for stop in stops if not stop["seen"]]
    assert not [stop["what"] for stop in stops if not stop["marked"]]
