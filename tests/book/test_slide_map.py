"""The slide map: every slide of both decks leads to a formula that was derived and checked."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.book.conftest import ROOT, build_small_book
from tools.formulas import all_formulas

ROWS = yaml.safe_load((ROOT / "book" / "slides.yml").read_text("utf-8"))
FORMULAS = {row.tag: row for row in all_formulas(ROOT / "nbs")}
LECTURES = {int(path.name[:2]) for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb")}

# the decks' headings in order; title pages state nothing to derive, and deck B gives no references
SLIDES = {
    "A": [
        "Taxonomy of GMs",
        "Desiderata in Deep GMs",
        "Terminology in Deep GMs",
        "Simple Prior to Complex Data Distributions",
        "What is a Flow Model?",
        "Flow models – Basic properties",
        "Flow models – Math Terminology",
        "Change of Variables (1D case)",
        "Geometry: Determinants & Volumes",
        "Generalized Change of Variables",
        "Two Dimensional Example",
        "Normalizing Flow Models",
        "A Flow of Transformations",
        "Learning and Inference",
        "Desiderata for Flow Models",
        "Triangular Jacobian",
        "Planar flow",
        "References",
    ],
    "B": [
        "Latent Space: Motivation",
        "Latent Representation: Example",
        "Data Manifold",
        "Latent Space",
        "Working with Latent Representation",
        "Latent Representation: Statistical Interpretation",
        "Normalizing Flow: A Simple Probability Problem",
        "Change of Variable",
        "Change of Variable: Scalar Result",
        "Change of Variable: Array Variables",
        "Flow: Learnable Mapping from Latent to Data",
        "Flow Process: Chain of Mappings",
        "Flow Process",
        "Flow-based Models",
        "Flow-based Models: Sampling",
        "Flow-based Models: MLE Learning",
        "Flow-based Models: Training",
        "Real-valued Non-Volume Preserving",
        "Real NVP: Flow",
        "Real NVP: Inverse Flow",
        "Real NVP: Jacobian",
        "Real NVP: Training",
        "Real NVP: Sample Output",
        "Variants of Real NVP: NICE",
        "Variants of Real NVP: Glow",
        "Flow-based Models: Wrap Up",
        "Final Notes",
    ],
}


@pytest.mark.parametrize("deck", SLIDES)
def test_every_slide_is_on_the_map_in_the_decks_order(deck):
    mapped = [slide for slide, _ in groupby(row["slide"] for row in ROWS if row["deck"] == deck)]
    assert mapped == SLIDES[deck]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['deck']}-{row['row'][:40]}")
def test_every_row_has_checked_formulas_or_a_lecture_to_come(row):
    if "planned" in row:
        assert "tags" not in row
        assert row["planned"] not in LECTURES, f"lecture {row['planned']} stands now: give the row its tags"
        return
    assert row["tags"], "a row needs the tags of the formulas that derive it"
    for tag in row["tags"]:
        assert tag in FORMULAS, f"no lecture has a formula ({tag}) with a check"
        assert FORMULAS[tag].line.startswith(f"✓ ({tag})")


def test_the_errata_point_to_checked_formulas():
    for entry in yaml.safe_load((ROOT / "book" / "errata.yml").read_text("utf-8")):
        assert entry["tag"].rstrip("abcdefghijklmnopqrstuvwxyz") in FORMULAS, entry


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    for name in ("plain_forms", "slide_map"):
        sys.modules.pop(name, None)
    import slide_map

    return slide_map


def test_names_lead_to_their_line(extension):
    path, line, anchor = extension.locate("flowlib.flow.Flow.log_prob")
    assert (path, anchor) == ("flowlib/flow", "Flow.log_prob")
    assert "def log_prob" in (ROOT / "flowlib" / "flow.py").read_text("utf-8").splitlines()[line - 1]
    # where it is defined, not the package that exports it
    assert extension.locate("flowlib.train.fit")[::2] == ("flowlib/train/loop", "fit")
    with pytest.raises(ValueError, match=r"no class, function or method flowlib\.flow\.Flow\.likelihood"):
        extension.locate("flowlib.flow.Flow.likelihood")


def build(folder: Path, slides: str) -> tuple[str, str]:
    """Build a book of one lecture with one formula and a map; return the map's HTML and the warnings."""
    printed = new_output("stream", name="stdout", text="✓ (6.1) one is one: equal to within 1e-10\n")
    call = 'check.identity("6.1", 1.0, 1.0, says="one is one")'
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# 6. A lecture\n\n## 6.1 Ones\n\n$$\n1 = 1 \\tag{6.1}\n$$"),
            new_code_cell(call, outputs=[printed], execution_count=1),
        ],
        metadata={"language_info": {"name": "python", "pygments_lexer": "ipython3"}},
    )
    source, out = folder / "source", folder / "out"
    (source / "book").mkdir(parents=True)
    (source / "nbs").mkdir()
    nbformat.write(notebook, source / "nbs" / "06_lecture.ipynb")
    (source / "index.md").write_text("# Start\n\n```{toctree}\nnbs/06_lecture\nmap\n```\n", "utf-8")
    (source / "map.md").write_text("# Map\n\n```{slide-map} A\n```\n\n```{formula-list}\n```\n", "utf-8")
    (source / "book" / "slides.yml").write_text(slides, "utf-8")
    warnings = build_small_book(source, out, "slide_map")
    return (out / "map.html").read_text("utf-8"), warnings


ROW = '{deck: A, slide: "A slide", row: "One is one.", tags: ["6.1"], code: flowlib.flow.Flow.log_prob}'


@pytest.mark.usefixtures("extension")
def test_a_row_shows_formula_lecture_check_and_line(tmp_path):
    html, warnings = build(tmp_path, f"[{ROW}]")
    assert not warnings
    page = BeautifulSoup(html, "html.parser")
    links = [link["href"] for link in page.select(".formula-listing li a[href]")]
    assert "nbs/06_lecture.html#formula-6-1" in links
    assert "_modules/flowlib/flow.html#Flow.log_prob" in links
    text = page.select_one(".formula-listing li").get_text()
    for part in ("One is one.", "1 = 1", "6.1 Ones", "✓ (6.1) one is one: equal to within 1e-10"):
        assert part in text


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (ROW.replace("6.1", "6.2"), "has a formula (6.2) with a check"),
        (ROW.replace("log_prob", "likelihood"), "no class, function or method flowlib.flow.Flow.likelihood"),
    ],
    ids=["unknown tag", "unknown name"],
)
def test_a_dead_entry_stops_the_build(tmp_path, wrong, says):
    _, warnings = build(tmp_path, f"[{wrong}]")
    assert says in warnings
