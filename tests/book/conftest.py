"""The built book, and a headless Chromium to open it in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from tests.book.visits import PHONE, Visit, visit
from tools.chromium import chromium

ROOT = Path(__file__).parents[2]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def build_small_book(source: Path, out: Path, *extensions: str, **more: Any) -> str:
    """Build a folder of pages with some of the book's own extensions; return the warnings."""
    settings = {
        "extensions": ["myst_nb", "sphinx.ext.mathjax", "plain_forms", *extensions],
        "myst_enable_extensions": ["dollarmath", "colon_fence"],
        "nb_execution_mode": "off",
        "html_theme": "basic",
        **more,
    }
    warnings = StringIO()
    with docutils_namespace():
        Sphinx(source, None, out, out / ".doctrees", "html", settings, StringIO(), warnings).build()
    return warnings.getvalue()


def build_results_page(
    folder: Path, results: dict[str, Any], directive: str, parts: Iterable[str], extension: str
) -> tuple[BeautifulSoup, str]:
    """Build a page of some parts of a directive from results of the benchmarks; its soup and the warnings."""
    place = folder / "benchmarks" / "results"
    place.mkdir(parents=True)
    for name, measured in results.items():
        (place / f"{name}.json").write_text(json.dumps(measured), "utf-8")
    text = "\n\n".join(f"## {part}\n\n```{{{directive}}} {part}\n```" for part in parts)
    (folder / "index.md").write_text(f"# Page\n\n{text}\n", "utf-8")
    warnings = build_small_book(folder, folder / "out", extension)
    return BeautifulSoup((folder / "out/index.html").read_text("utf-8"), "html.parser"), warnings


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built book; ``make test`` builds it first, a bare pytest builds it here."""
    folder = ROOT / "_build" / "html"
    if not (folder / "searchindex.js").exists():
        print("The book is not built yet; building it, which takes a minute.", file=sys.stderr)
        program = str(Path(sys.executable).with_name("jupyter-book"))
        command = [program, "build", ".", "-W", "-n", "--keep-going"]
        built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if built.returncode:
            pytest.fail(f"The book does not build:\n{built.stdout[-3000:]}\n{built.stderr[-3000:]}")
    return folder


@pytest.fixture(scope="session")
def soup(html: Path):
    """A function from a page's path below the book to its parsed HTML."""

    @cache
    def parsed(page: Path) -> BeautifulSoup:
        return BeautifulSoup((html / page).read_text("utf-8"), "html.parser")

    return parsed


@pytest.fixture(scope="session")
def pages(html: Path) -> list[Path]:
    """Every page a reader can reach, relative to the book's folder; source listings left out."""
    found = sorted(path.relative_to(html) for path in html.rglob("*.html"))
    return [page for page in found if page.parts[0] not in ("_modules", "_static")]


@pytest.fixture(scope="session")
def lectures() -> list[Path]:
    """The notebooks of the lectures."""
    return sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="session")
def labs() -> list[Path]:
    """The notebooks of the labs."""
    return sorted((ROOT / "nbs" / "labs").glob("*.ipynb"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module."""
    try:
        path = chromium()
    except FileNotFoundError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield one
        one.close()


@pytest.fixture(scope="session")
def visited() -> dict[str, Visit]:
    """Of all modules together: a browser lives for one, and a page needs one visit."""
    return {}


@pytest.fixture(scope="module")
def visits(
    visited: dict[str, Visit], phone: BrowserContext, html: Path, pages: list[Path]
) -> dict[str, Visit]:
    """Each page opened once from its file; index.html only sends the reader on to the start page."""
    for page in pages:
        if page.as_posix() not in {"index.html", *visited}:
            visited[page.as_posix()] = visit(phone, (html / page).as_uri())
    return visited


@pytest.fixture(scope="module")
def phone(browser: Browser) -> Iterator[BrowserContext]:
    """A phone with a touch screen: a page in it opens three times faster than with a phone of its own."""
    context = browser.new_context(viewport=PHONE, has_touch=True, color_scheme="light")
    yield context
    context.close()


@contextmanager
def on_a_phone(
    phone: BrowserContext, address: str, told: Sequence[str] = (), before: str = ""
) -> Iterator[Page]:
    """A page on a phone, its figures ready; its console tells this alone."""
    page, errors = phone.new_page(), []

    def hear(line: ConsoleMessage) -> None:
        own = line.text.startswith("Canvas2D: Multiple readback")  # of pixels, by the tests
        if line.type in ("error", "warning") and not own:
            errors.append(line.text)

    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", hear)
    if before:
        page.add_init_script(before)
    page.goto(address)
    page.evaluate("flowFigures.ready")
    yield page
    page.close()
    assert errors == list(told)
