"""The print edition: every page of the book in one PDF, by ``make pdf``.

The pages are built as one, in the order of the table of contents, so that links and outline work within the
file; headless Chromium prints it with page numbers. A formula or a line of code that would be cut stops it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tools.chromium import chromium

ROOT = Path(__file__).parents[1]
OUT = ROOT / "_build" / "normalizing-flows.pdf"
SCALE = 0.7
MARGIN = {"top": "16mm", "bottom": "16mm", "left": "16mm", "right": "16mm"}
WIDTH = round((210 - 2 * 16) / SCALE / 25.4 * 96)  # of A4's text, in the page's own pixels
FOOT = '<div style="font-size: 8px; width: 100%; text-align: center"><span class="pageNumber"></span></div>'
# answers are open on paper, figures do not wait for a reader who scrolls, and all starts at the start page
UNFOLD = """() => {
  const top = '<span id="document-book/index"></span>';
  document.querySelector("article").insertAdjacentHTML("afterbegin", top);
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  document.querySelectorAll("img[loading]").forEach((one) => { one.loading = "eager"; });
  return Promise.all([MathJax.startup.promise, ...Array.from(document.images, (one) => one.decode())]);
}"""
CUT = """() => Array.from(document.querySelectorAll("article :is(div.math, pre, img, table)"))
  .filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1)
  .map((one) => one.textContent.trim().slice(0, 60) || one.outerHTML.slice(0, 60))"""
NOWHERE = """() => Array.from(document.querySelectorAll('article a[href^="#"]'), (one) => one.hash.slice(1))
  .filter((id) => id && !document.getElementById(decodeURIComponent(id)))"""


def build(folder: Path) -> Path:
    """Build all pages as one, and return it."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "-W", "-n"]
    subprocess.run(
        [*command, "--builder", "singlehtml", "--path-output", str(folder)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    book = folder / "_build" / "singlehtml"
    return (book / "book" / "index.html").rename(book / "print.html")  # its paths start there


def look(page: Page) -> None:
    """Stop before a page is printed that loses something.

    Raises:
        SystemExit: if something is wider than the paper, or a link leads nowhere.
    """
    page.set_viewport_size({"width": WIDTH, "height": 1000})
    page.emulate_media(media="print")
    page.evaluate(UNFOLD)
    for script, what in ((CUT, "wider than the paper"), (NOWHERE, "a link that leads nowhere")):
        if found := page.evaluate(script):
            raise SystemExit("\n".join([f"{len(found)} times {what}:", *found[:20]]))


def main() -> None:
    ArgumentParser(prog="python -m tools.print_edition", description=(__doc__ or "")).parse_args()
    try:
        path = chromium()
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    folder = ROOT / "_build" / "print"
    shutil.rmtree(folder, ignore_errors=True)
    source = build(folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(0)
        page.goto(source.as_uri())
        look(page)
        page.pdf(
            path=OUT,
            format="A4",
            scale=SCALE,
            margin=MARGIN,
            outline=True,
            tagged=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
        )
        browser.close()
    pages = len(re.findall(rb"/Type\s*/Page\b(?!s)", OUT.read_bytes()))
    print(f"{OUT.relative_to(ROOT)}: {pages} pages, {OUT.stat().st_size / 1e6:.0f} MB.")


if __name__ == "__main__":
    main()
