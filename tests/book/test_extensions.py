"""What the book's own extensions make of plain notebooks and of data files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.book.conftest import ROOT, build_small_book
from tools import setup_cell

LECTURE = r"""
# 6. A lecture

$$
\begin{aligned}
a &= b \\
c &= d.
\end{aligned} \tag{6.3}
$$

> **Theorem 6.2 (a name).** It holds that $a = b$.

> A plain quotation with a **bold** word.
"""
PAGE = """
# A page

{formula}`6.3`, {formula}`9.1`, {lecture}`Planar flows <6>`, {lecture}`Glow <9>`,
[the term](page.md#term-planar-flow)

```{errata} slip
```

```{terms}
```
"""
ERRATUM = """{deck: A, slide: "A & B", kind: slip, says: "$Z = AZ$", correct: "$X = AZ$",
 tag: "6.3", number: "0.5"}"""
TERM = '{term: planar flow, definition: "A layer\n with $u$.", deck: AB, lecture: 6}'


REMARK = ERRATUM.replace("kind: slip", "kind: remark").replace("A & B", "Another slide")


def build(folder: Path, errata: str = f"[{ERRATUM}, {REMARK}]", terms: str = f"[{TERM}]") -> tuple[Path, str]:
    """Build a book of one lecture and one page; return its folder and the warnings."""
    source, out = folder / "source", folder / "out"
    for name, text in {
        "nbs/06_lecture.md": LECTURE,
        "index.md": "# Start\n\n```{toctree}\nnbs/06_lecture\npage\n```\n",
        "page.md": PAGE,
        "book/errata.yml": errata,
        "book/glossary.yml": terms,
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, "utf-8")
    warnings = build_small_book(source, out, "course_pages")
    return out, warnings


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    for name in ("plain_forms", "course_pages"):
        sys.modules.pop(name, None)


def test_plain_forms_and_data_become_pages(tmp_path: Path) -> None:
    out, warnings = build(tmp_path)
    assert not warnings

    lecture = BeautifulSoup((out / "nbs/06_lecture.html").read_text("utf-8"), "html.parser")
    formula = lecture.find(id="formula-6-3").get_text()
    assert "split" not in formula, "MathJax refuses a tag within split."
    assert formula.strip().startswith(r"\[")
    theorem, quotation = lecture.find_all("blockquote")
    assert theorem["class"] == ["statement", "theorem"]
    assert not quotation.get("class")
    assert "\u2060." in theorem.get_text(), "The full stop could start a new line."

    page = BeautifulSoup((out / "page.html").read_text("utf-8"), "html.parser")
    links = {link.get_text(): link["href"] for link in page.select("section a[href]")}
    assert links["(6.3)"] == "nbs/06_lecture.html#formula-6-3"
    assert links["Planar flows"] == "nbs/06_lecture.html"
    assert links["the term"] == "#term-planar-flow"
    assert page.find(id="term-planar-flow").name == "dt"
    assert "(9.1)" in page.get_text()
    assert "Glow planned" in page.get_text()
    assert "(9.1)" not in links
    rubrics = [rubric.get_text() for rubric in page.find_all(class_="rubric")]
    assert rubrics == ["Deck A: A & B"], "The page shows slips alone."
    entry = page.select_one(".rubric + ul li").get_text().strip().split("\n")
    assert entry == [r"The slide: \(Z = AZ\)", r"Correct: \(X = AZ\)", "What decides: 0.5 (6.3)"]


def test_a_folded_cell_says_what_it_holds(tmp_path: Path) -> None:
    """A check's line is seen, its code is not, and a screen reader says the title, not “hidden content”."""
    metadata = {"tags": ["hide-input"], "cellView": "form"}
    sources = {
        "# @title Check (6.1) & (6.2)\n1 + 1": "Check (6.1) & (6.2)",
        setup_cell.source(): setup_cell.FIRST_LINE.removeprefix("# @title "),
        "without_title": "Show code cell source",
    }
    printed = [new_output("stream", text="✓ (6.1) it holds")]
    cells = [new_code_cell(source, metadata=metadata, outputs=printed) for source in sources]
    python = {"language_info": {"name": "python"}}
    notebook = new_notebook(cells=[new_markdown_cell("# A lecture"), *cells], metadata=python)
    nbformat.write(notebook, tmp_path / "index.ipynb")
    assert not build_small_book(tmp_path, tmp_path / "out")
    page = BeautifulSoup((tmp_path / "out/index.html").read_text("utf-8"), "html.parser")
    folds = page.select("details.hide")
    assert [fold.summary.get_text() for fold in folds] == list(sources.values())
    assert all(not fold.has_attr("open") and not fold.summary.attrs for fold in folds)
    assert "1 + 1" in folds[0].get_text().replace("\xa0", " ")
    assert len(page.select(".cell_output")) == 3
    assert not page.select("details .cell_output")


def test_empty_files_say_so(tmp_path: Path) -> None:
    out, warnings = build(tmp_path, errata="[]", terms="")
    text = (out / "page.html").read_text("utf-8")
    assert "No entry of this kind is recorded yet" in text
    assert "No term is recorded yet" in text
    assert "xref_missing" in warnings or "local id not found" in warnings, (
        "The link to the term must be reported."
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (ERRATUM.replace('"6.3"', "6.30"), "tag is 6.3. Put quotes around it"),
        (ERRATUM.replace("deck: A", "deck: C"), "deck is 'C'. Use A, B, AB or beyond"),
        (
            ERRATUM.replace("says:", "said:"),
            "expected exactly deck (str), slide (str), kind (str), says (str)",
        ),
        (ERRATUM.replace("slip", "blunder"), "no kind 'blunder'; use error, slip, missing condition, remark"),
        ("a word", "has 'a word'; expected exactly"),
    ],
    ids=["number without quotes", "no such deck", "wrong field", "no such kind", "no mapping"],
)
def test_a_wrong_entry_is_named(tmp_path: Path, wrong: str, says: str) -> None:
    _, warnings = build(tmp_path, errata=f"[{wrong}]")
    assert "Entry 1 of book/errata.yml" in warnings
    assert says in warnings


def test_the_errata_page_shows_every_kind() -> None:
    import course_pages

    page = (ROOT / "book" / "errata.md").read_text("utf-8")
    assert re.findall(r"^```\{errata\} (.+)$", page, re.MULTILINE) == list(course_pages.KINDS)


def test_a_signature_over_several_lines_is_no_list_without_terms(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import accessible

    html = '(\n<dl>\n<dd><em>z</em>,</dd>\n<dd><a href="#b">x</a></dd>\n</dl>\n)'
    lines = '<span class="sig-lines"><span><em>z</em>,</span><span><a href="#b">x</a></span></span>'
    assert accessible.signatures_as_lines(html) == f"(\n{lines}\n)"
    true_list = "<dl>\n<dt>a</dt>\n<dd>b</dd>\n</dl>"
    assert accessible.signatures_as_lines(true_list) == true_list
