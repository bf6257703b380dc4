"""WCAG 2.2 AA on every page, by axe-core: light, dark and on a phone. And a reader with a keyboard alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.book.visits import AA, DESK, JUDGE, PHONE, Visit, stand_still, unfold

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("what", ["light", "dark", "phone"])
def test_no_page_violates_wcag(visits: dict[str, Visit], what: str) -> None:
    found = [f"{name}: {problem}" for name, visit in visits.items() for problem in visit.violations[what]]
    assert not found, "\n".join(found[:40])


def test_axe_sees_what_is_wrong(browser: Browser, html: Path) -> None:
    page = browser.new_page(viewport=DESK)
    stand_still(page, (html / "book" / "how_to.html").as_uri())
    unfold(page)
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
    stand_still(page, (html / "book" / "how_to.html").as_uri())
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
    stand_still(page, (html / name).as_uri())
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
