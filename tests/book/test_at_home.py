"""A fork's book without an edit: its address in text, buttons and downloads. And what a preview says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.book.conftest import ROOT, build_small_book
from tools import setup_cell
from tools.repo import home
from tools.repo import pages as pages_of

FORK = "https://github.com/Ada/flows"
THEME = {
    "html_theme": "sphinx_book_theme",
    "html_title": "Normalizing flows",
    "exclude_patterns": ["book"],
    "html_theme_options": {
        "repository_branch": "main",
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    },
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A function from the workflow's repository to a built book of two pages."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    for name in ("GITHUB_REPOSITORY", "GITHUB_SERVER_URL", "BOOK_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("at_home", "page_head"):
        sys.modules.pop(name, None)
    source = tmp_path / "source"
    (source / "nbs").mkdir(parents=True)
    (source / "book").mkdir()
    (source / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (source / "book" / "syllabus.md").write_text("| 1 | {lecture}`Ones <1>` | Add ones & twos. | A |\n")
    clone = f"git clone {setup_cell.repository()}"
    start = f"# Start\n\nWhat $x$ is.\n\nSay `{clone}`. {'And more words. ' * 20}\n\n"
    start += "```{toctree}\nnbs/01_ones\n```\n"
    (source / "index.md").write_text(start)
    cells = [new_markdown_cell("# 1. Ones\n\nA first paragraph."), new_code_cell(setup_cell.source())]
    nbformat.write(
        new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}),
        source / "nbs/01_ones.ipynb",
    )

    def build(repository: str | None) -> Path:
        if repository:
            monkeypatch.setenv("GITHUB_REPOSITORY", repository.removeprefix("https://github.com/"))
        warnings = build_small_book(source, tmp_path / "out", "at_home", "page_head", **THEME)
        assert not warnings
        return tmp_path / "out"

    return build


def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def colab(page: BeautifulSoup) -> list[str]:
    links = [link["href"] for link in page.find_all("a", href=True)]
    return [link for link in links if link.startswith("https://colab.research.google.com")]


def meta(page: BeautifulSoup) -> dict[str, str]:
    return {tag.get("name") or tag.get("property"): tag.get("content") for tag in page.find_all("meta")}


def test_a_forks_book_names_the_fork(small):
    out = small(FORK)
    lecture = read(out / "nbs/01_ones.html")
    assert f'REPO = "{FORK}"' in lecture.get_text()
    assert set(colab(lecture)) == {
        "https://colab.research.google.com/github/Ada/flows/blob/colab/nbs/01_ones.ipynb"
    }
    assert f"git clone {FORK}" in read(out / "index.html").get_text()
    assert lecture.find("link", rel="canonical")["href"] == "https://ada.github.io/flows/nbs/01_ones.html"
    (download,) = (out / "_sources").rglob("01_ones.*")
    assert f'REPO = \\"{FORK}\\"' in download.read_text("utf-8")


def test_where_the_files_are_right_colab_opens_main(small):
    lecture = read(small(None) / "nbs/01_ones.html")
    place = setup_cell.repository().removeprefix("https://github.com/")
    assert set(colab(lecture)) == {
        f"https://colab.research.google.com/github/{place}/blob/main/nbs/01_ones.ipynb"
    }


def test_the_address_of_the_pages_can_be_named(small, monkeypatch):
    monkeypatch.setenv("BOOK_URL", "https://flows.example.org")
    out = small(FORK)
    assert (
        read(out / "index.html").find("link", rel="canonical")["href"]
        == "https://flows.example.org/index.html"
    )


def test_a_page_says_what_it_is_about(small):
    out = small(FORK)
    lecture, start = meta(read(out / "nbs/01_ones.html")), meta(read(out / "index.html"))
    assert lecture["description"] == lecture["og:description"] == "Add ones & twos."
    assert lecture["og:title"] == "1. Ones"
    assert lecture["og:image"] == "https://ada.github.io/flows/_static/glow.png"
    assert start["description"].startswith("Say git clone https://github.com/Ada/flows. And more words.")
    assert start["description"].endswith("words.")
    assert 150 < len(start["description"]) <= 200
    assert (ROOT / "book" / "_static" / "glow.png").exists()


def test_every_page_of_the_book_has_a_description_of_its_own(pages: list[Path], soup):
    told = {}
    for page in pages:
        if page.name not in ("index.html", "search.html") or page.parent.name:
            told[str(page)] = meta(soup(page)).get("description", "")
    short = [page for page, text in told.items() if not 30 < len(text) <= 200 or "\\" in text]
    assert not short, (
        "Without a sentence: a lecture's stands in book/syllabus.md, another page's opens its text."
    )
    assert len(set(told.values())) == len(told)


def test_the_book_knows_its_own_address(html: Path, soup):
    served = os.environ.get("BOOK_URL") or pages_of(home())
    link = soup(Path("book/index.html")).find("link", rel="canonical")
    assert (link and link["href"]) == (f"{served}book/index.html" if served else None)
