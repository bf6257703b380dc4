"""The list of references: complete, unique, and everything that is cited is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from pybtex.database import BibliographyData, parse_file

from tests.book.conftest import ROOT

PAPER = re.compile(r"https?://(?:dx\.)?(?:arxiv\.org/(?:abs|pdf)/|doi\.org/)([^\s\"'<>\\]+)")
CITED = re.compile(r"\{cite:[a-z]+\}`([^`]+)`")


@pytest.fixture(scope="module")
def bibliography() -> BibliographyData:
    return parse_file(str(ROOT / "book" / "references.bib"))


def identifiers(bibliography: BibliographyData) -> list[str]:
    """The DOI and the arXiv number of every entry, in small letters."""
    fields = (entry.fields.get(name) for entry in bibliography.entries.values() for name in ("doi", "eprint"))
    return [value.lower() for value in fields if value]


def test_every_entry_can_be_found(bibliography: BibliographyData) -> None:
    lost = [
        key
        for key, entry in bibliography.entries.items()
        if not {"doi", "eprint", "url", "publisher"} & set(entry.fields) and not key.startswith("deck")
    ]
    assert not lost, f"An entry needs a DOI, an arXiv number, an address or a publisher: {lost}"


def test_no_paper_is_listed_twice(bibliography: BibliographyData) -> None:
    numbers = identifiers(bibliography)
    assert len(numbers) == len(set(numbers))


def test_what_pages_cite_is_listed(bibliography: BibliographyData) -> None:
    for page in (ROOT / "book").glob("*.md"):
        for keys in CITED.findall(page.read_text("utf-8")):
            unknown = {key.strip() for key in keys.split(",")} - set(bibliography.entries)
            assert not unknown, f"{page.name} cites {unknown}, which book/references.bib lacks."


def test_what_lectures_cite_is_listed(bibliography: BibliographyData, lectures: list[Path]) -> None:
    numbers = set(identifiers(bibliography))
    missing = []
    for lecture in lectures:
        for cell in json.loads(lecture.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                for found in PAPER.findall("".join(cell["source"])):
                    number = re.sub(r"v\d+$|\.pdf$", "", unquote(found.rstrip(".,;)*]"))).lower()
                    if number not in numbers:
                        missing.append(f"{lecture.name}: {found}")
    assert not missing, "Not in book/references.bib:\n" + "\n".join(missing)
