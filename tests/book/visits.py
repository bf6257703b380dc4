"""One visit to every page of the book: what it fetches, shows and violates, on a phone and at a desk."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, TimeoutError

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HERE = Path(__file__).parent
MEASURE, SPECIMENS = ((HERE / f"{name}.js").read_text("utf-8") for name in ("measure", "specimens"))
AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
STILL = "* { animation: none !important; transition: none !important; scroll-behavior: auto !important; }"
# the theme lets wide code and tables be scrolled by keyboard, some time after the window has changed
REACHED = """() => Array.from(document.querySelectorAll('pre, .pst-scrollable-table-container'))
  .every((wide) => wide.scrollWidth <= wide.clientWidth || wide.tabIndex === 0)"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
FIGURES = """() => Array.from(document.querySelectorAll(".flow-figure"), (place) => {
  const { left, right } = place.getBoundingClientRect();
  const filled = Boolean(place.querySelector(".flow-readout dd")?.innerText);
  return { name: place.dataset.figure, left, right, filled };
})"""
AA = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# contrast is the dearest rule by far: it judges each kind of text once
JUDGE = """async (tags) => {
  const quick = { resultTypes: ["violations"], preload: false }; // a file may not read its style sheets
  const found = await axe.run("[data-text]", { runOnly: ["color-contrast"], ...quick });
  const rules = { "color-contrast": { enabled: false } };
  const more = tags.length && (await axe.run(document, { runOnly: tags, rules, ...quick }));
  const why = (node) => node.failureSummary.split("\\n")[1];
  const told = (rule, node) => `${rule.id}: ${node.html.slice(0, 120)} (${why(node)})`;
  const violations = [...found.violations, ...(more ? more.violations : [])];
  return violations.flatMap((rule) => rule.nodes.map((node) => told(rule, node)));
}"""


@dataclass
class Visit:
    """What one page did and showed while it was open.

    ``first_view`` are the requests of a reader who has not scrolled, on a phone or at a desk, ``painted`` the
    milliseconds until something was seen, ``shown`` what measure.js finds and ``violations`` what axe-core
    finds in each theme and on each screen.
    """

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    first_view: set[str] = field(default_factory=set)
    painted: float = float("inf")
    figures: list[dict[str, Any]] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)
    violations: dict[str, list[str]] = field(default_factory=dict)


def listen(page: Page) -> Visit:
    """Record every request, console error, exception and failed request of a page."""
    visit = Visit()
    page.on("request", lambda request: visit.requests.append(request.url))
    page.on("requestfailed", lambda request: visit.errors.append(f"failed: {request.url}"))
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda line: visit.errors.append(line.text) if line.type == "error" else None)
    return visit


def visit(phone: BrowserContext, address: str) -> Visit:
    """Open a page on a phone and look; then unfold everything and let axe-core judge it."""
    page = phone.new_page()
    found = listen(page)
    stand_still(page, address)
    found.painted = page.evaluate(PAINTED)
    page.set_viewport_size(DESK)  # which may show pictures that a phone does not
    page.evaluate(DRAWN)
    found.first_view = set(found.requests)
    page.set_viewport_size(PHONE)
    page.evaluate(DRAWN)
    found.figures = page.evaluate(FIGURES)
    found.shown = page.evaluate(MEASURE)
    unfold(page)
    for what, size in {"phone": PHONE, "light": DESK, "dark": DESK}.items():
        page.set_viewport_size(size)
        page.evaluate(f"document.documentElement.dataset.theme = '{'dark' if what == 'dark' else 'light'}'")
        wait_for_theme(page)
        found.violations[what] = page.evaluate(JUDGE, [] if what == "dark" else AA)
    page.close()
    return found


def stand_still(page: Page, address: str) -> None:
    """Open a page and wait until formulas and figures stand; nothing on it moves by itself."""
    page.goto(address)
    page.add_style_tag(content=STILL)
    page.evaluate("() => Promise.all([window.MathJax?.startup?.promise, window.flowFigures?.ready])")


def unfold(page: Page) -> None:
    """Unfold everything on an open page, and bring axe-core."""
    page.evaluate(SPECIMENS)
    wait_for_theme(page)
    page.add_script_tag(content=AXE)


def wait_for_theme(page: Page) -> None:
    """If it takes longer than ten seconds, axe-core says what is missing."""
    with suppress(TimeoutError):
        page.wait_for_function(REACHED, timeout=10_000)
