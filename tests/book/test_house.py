"""The page that shows the house: every file with its sentence, one formula from slide to test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.book.conftest import ROOT, build_small_book


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    for name in ("house", "slide_map", "plain_forms"):
        sys.modules.pop(name, None)
    import house

    return house


def test_a_sentence_ends_at_its_full_stop_and_is_markdown(extension, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(
        '"""The map :math:`x = f(z)`: see :data:`~flowlib.models.MODELS` and\n``fit``. More."""\n'
    )
    assert extension.first_sentence(file) == "The map $x = f(z)$: see `MODELS` and `fit`."
    file.write_text("x = 1\n")
    assert extension.first_sentence(file) == ""


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("```{house} mute\n```", "silent.py says nothing of itself"),
        ("```{house} empty\n```", "empty holds no Python"),
        ("```{journey} 6.9\n```", "No slide in book/slides.yml has the formula (6.9)"),
    ],
)
def test_what_is_missing_is_named(extension, tmp_path, page, says):
    for folder in ("mute", "empty", "book", "nbs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mute" / "silent.py").write_text("x = 1\n")
    (tmp_path / "book" / "slides.yml").write_text("[]")
    (tmp_path / "index.md").write_text(f"# Page\n\n{page}\n")
    assert says in build_small_book(tmp_path, tmp_path / "out", "slide_map", "house")


def test_the_page_has_every_file_and_the_whole_way(soup):
    page = soup(Path("book/house.html"))
    listed = {code.get_text() for code in page.select(".house li > p > code:first-child")}
    folders = ("flowlib", "flowlib/layers", "flowlib/train", "tools", "tools/lint", "book/_ext", "benchmarks")
    files = {path.name for folder in folders for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
    assert listed == files
    stops = page.select(".journey ol > li")
    assert len(stops) == 5
    links = [link["href"] for link in page.select(".journey a[href]")]
    assert "../nbs/06_planar_flows.html#formula-6-3" in links
    assert any(link.startswith("../_modules/flowlib/layers/planar.html#") for link in links)
    assert "✓ (6.3" in page.select_one(".journey").get_text()
