"""The page of wrong formulas, as it follows from the results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from tests.book.conftest import ROOT, build_small_book

SURVIVOR = {"cell": 3, "line": 2, "tag": "6.3b", "change": "a + b → a - b"}
HARMLESS = SURVIVOR | {"tag": "6.4", "change": "n * 0 → n / 0.5"}
FOUND = {
    "seconds": 5,
    "possible": 30,
    "run": 12,
    "killed": 10,
    "survivors": [SURVIVOR, HARMLESS],
    "unjudged": [],
}
PAGE = "# Start\n\n```{toctree}\nnbs/06_lecture\n```\n\n" + "".join(
    f"```{{mutants}} {part}\n```\n\n" for part in ("shares", "survivors", "equivalents", "others")
)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[BeautifulSoup, str]:
    """The soup of a page with every part, and the warnings of its build."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    for name in ("plain_forms", "course_pages", "benchmark_page", "mutants_page"):
        sys.modules.pop(name, None)
    results, harmless = tmp_path / "mutants.json", tmp_path / "equivalents.yml"
    results.write_text(json.dumps({"06": FOUND, "07": FOUND}), "utf-8")
    harmless.write_text(
        f'- {{lecture: "06", tag: "6.4", change: "{HARMLESS["change"]}", why: Nothing times n.}}', "utf-8"
    )
    monkeypatch.setattr("tools.mutants.results.RESULTS", results)
    monkeypatch.setattr("tools.mutants.results.EQUIVALENTS", harmless)
    source = tmp_path / "source"
    (source / "nbs").mkdir(parents=True)
    (source / "nbs" / "06_lecture.md").write_text("# 6. A lecture\n\n$$\na \\tag{6.3}\n$$\n", "utf-8")
    (source / "index.md").write_text(PAGE, "utf-8")
    warnings = build_small_book(source, tmp_path / "out", "course_pages", "mutants_page")
    return BeautifulSoup((tmp_path / "out/index.html").read_text("utf-8"), "html.parser"), warnings


def test_the_page_follows_from_the_results(page: tuple[BeautifulSoup, str]) -> None:
    soup, warnings = page
    rows = [
        [cell.get_text().replace("\xa0", " ") for cell in row.find_all("td")] for row in soup.find_all("tr")
    ]
    assert rows[1:] == [["6*", "30", "12", "10", "1", "1", "90.9 %"]], "Lecture 7 is not in this book."
    survivor, harmless = (item.get_text().strip() for item in soup.select(".benchmarks li"))
    assert survivor == "(6.3b) cell 3, line 2: a + b → a - b"
    assert harmless == "(6.4) n * 0 → n / 0.5: Nothing times n."
    assert soup.select_one(".benchmarks li a")["href"] == "nbs/06_lecture.html#formula-6-3"
    assert "mutants has no part 'others'; it has shares, survivors, equivalents." in warnings
    assert warnings.count("ERROR") + warnings.count("WARNING") == 1, warnings


def test_the_books_page_has_every_part() -> None:
    text = (ROOT / "book" / "mutants.md").read_text("utf-8")
    parts = [rest.split()[0] for rest in text.split("```{mutants} ")[1:]]
    assert parts == ["shares", "survivors", "equivalents"]
