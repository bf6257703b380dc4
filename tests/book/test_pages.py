"""The built pages as files: links, alt text, Colab buttons, what was built and what was not."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import yaml

import flowlib
from tests.book.conftest import ROOT
from tools.repo import home
from tools.setup_cell import repository


def toc() -> list[str]:
    """Every page that ``_toc.yml`` names, in order."""
    table = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    return [table["root"], *(page["file"] for part in table["parts"] for page in part["chapters"])]


def config() -> dict:
    return yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))


def test_every_notebook_is_in_the_table_of_contents(lectures: list[Path], labs: list[Path]) -> None:
    named = [f"{name}.ipynb" for name in toc() if name.startswith("nbs/")]
    wanted = [path.relative_to(ROOT).as_posix() for path in [*lectures, *labs]]
    assert named == wanted, "One line each in _toc.yml, in order."


def test_every_page_of_the_table_is_built(html: Path) -> None:
    missing = [name for name in toc() if not (html / f"{name}.html").exists()]
    assert not missing


def test_only_the_book_is_built(html: Path, pages: list[Path]) -> None:
    """Hidden folders, the environment and the read-me hold Markdown too, and are no pages."""
    own = {"index", "search"}
    built = {page.with_suffix("").as_posix() for page in pages}
    assert built == {*toc(), *own}, "A page that left the book stays in _build until that folder is removed."
    sources = {
        path.relative_to(html / "_sources").with_suffix("").as_posix()
        for path in (html / "_sources").rglob("*.*")
    }
    assert sources == set(toc())
    assert not [path for path in html.rglob(".*") if path.is_dir()]


class Addresses(HTMLParser):
    """The places of a page, and where it leads; far quicker than a parse tree."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" or (tag == "a" and name == "name"):
                self.places.add(value or "")
            elif name in ("href", "src") and value:
                self.links.append(value)


def test_internal_links_resolve(html: Path) -> None:
    found = {path: Addresses(path) for path in html.rglob("*.html") if "_static" not in path.parts}
    broken = []
    for path, page in found.items():
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                broken.append(f"{path.relative_to(html)}: {address} leads nowhere")
            elif parts.fragment and target in found and unquote(parts.fragment) not in found[target].places:
                broken.append(f"{path.relative_to(html)}: {address} has no such place on its page")
    assert not broken, "\n".join(broken)


def test_every_image_says_what_it_shows(pages: list[Path], soup) -> None:
    mute = []
    for page in pages:
        for image in soup(page).select("article.bd-article img"):
            alt = (image.get("alt") or "").strip()
            if len(alt) < 40 or len(alt.split()) < 6:
                mute.append(f"{page}: {image.get('src')} has alt text {alt!r}")
    assert not mute, "Alt text says in a sentence what the picture shows:\n" + "\n".join(mute)


def test_every_notebook_opens_on_colab(lectures: list[Path], labs: list[Path], soup) -> None:
    place = home().removeprefix("https://github.com/")
    branch = config()["repository"]["branch"] if home() == repository() else "colab"
    start = f"https://colab.research.google.com/github/{place}/blob/{branch}"
    for notebook in [*lectures, *labs]:
        page = notebook.relative_to(ROOT)
        links = [link["href"] for link in soup(page.with_suffix(".html")).find_all("a", href=True)]
        colab = {link for link in links if link.startswith("https://colab.research.google.com")}
        assert colab == {f"{start}/{page.as_posix()}"}


def test_every_tagged_formula_has_an_address(lectures: list[Path], soup) -> None:
    from tools.formulas import TAG

    for lecture in lectures:
        cells = json.loads(lecture.read_text("utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        page = soup(Path(f"nbs/{lecture.stem}.html"))
        for tag in TAG.findall(text):
            assert page.find(id="formula-" + tag.replace(".", "-")), (
                f"{lecture.stem} has no place for ({tag})."
            )


def test_theorems_stand_in_boxes(lectures: list[Path], soup) -> None:
    for lecture in lectures:
        for quote in soup(Path(f"nbs/{lecture.stem}.html")).select("article.bd-article blockquote"):
            if quote.get_text().strip().startswith("Theorem"):
                assert {"statement", "theorem"} <= set(quote.get("class", []))


def public_names() -> set[str]:
    """What a reader may look up: flowlib's names, those of each module on the page, and every layer."""
    described = re.findall(r"automodule:: (\S+)", (ROOT / "book" / "api.md").read_text("utf-8"))
    names = {name for module in described for name in importlib.import_module(module).__all__}
    modules = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(flowlib.__path__, "flowlib.")
    ]
    parts = (flowlib.Bijection, flowlib.Base)
    layers = {
        name
        for module in modules
        for name in getattr(module, "__all__", [])
        if isinstance(thing := getattr(module, name), type) and issubclass(thing, parts)
    }
    top = {
        name for name, thing in vars(flowlib).items() if name[0] != "_" and not isinstance(thing, ModuleType)
    }
    return {*top, *names, *layers}


def test_the_api_page_has_every_public_name(soup) -> None:
    places = {element["id"] for element in soup(Path("book/api.html")).find_all(id=True)}
    missing = sorted(public_names() - {place.rpartition(".")[2] for place in places})
    assert not missing, f"Public, and not in book/api.md: {missing}."


def test_the_api_page_links_to_the_source(soup) -> None:
    page = soup(Path("book/api.html"))
    unlinked = [
        entry["id"]
        for entry in page.select("dl.py.class > dt, dl.py.function > dt")
        if entry.get("id") and not entry.select_one("a .viewcode-link, a.viewcode-link")
    ]
    assert not unlinked


def test_no_page_names_a_content_network(html: Path) -> None:
    """Widgets and interactive plots pull scripts from these; even unused they have no place here."""
    hosts = (
        "cdn.jsdelivr",
        "cdnjs.cloudflare",
        "unpkg.com",
        "require.min.js",
        "fonts.googleapis",
        "thebe_selector",
    )
    found = [
        f"{path.relative_to(html)}: {host}"
        for path in html.rglob("*.html")
        if path.relative_to(html).parts[0] != "_static"
        for host in hosts
        if host in path.read_text("utf-8")
    ]
    assert not found
