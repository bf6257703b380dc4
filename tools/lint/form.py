"""Rules about the form of a lecture: few cells, short lines, exercises of each kind, one notation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.lint.lecture import Lecture

CELLS = (20, 40)
CODE_LINE = 78  # what the book's column holds at 1280 pixels
EXERCISES_AT_LEAST = 5
# words of an exercise's first line, as in **10.3** (write this layer, 20 minutes, medium)
EXERCISES_OF_KIND = {"derivation": 2, "write this layer": 1, "predict, then run": 1}

FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)
OF_THE_DECKS = re.compile(r"\b(?:deck|slide)s?\b", re.IGNORECASE)
# what book/notation.md replaces: (pattern, what the course writes)
REPLACED = [
    (r"p_(?:d|\{d\})(?![\w])", r"p_{\text{data}}"),
    (r"P_\{?\\text\{data\}", r"p_{\text{data}}"),
    (r"\\hat R\((?:w|\\mathbf *\{?w\}?)\)", r"\hat R(\theta)"),
    (r"(?:[fpPz]_\{?|\\nabla_\{?)(?:w\b|\\mathbf *\{?w\b)", r"\theta for the parameters"),
    (r"(?<![|\w])\\det *(?:\\left)?(?:\||\\lvert)", r"|\det …|, with the bars outside"),
    (r"\\(?:mathrm|text)\{CDF\}", "F_X"),
    (r"\\mathbb *\{?D\b", r"\mathcal D"),
]


def few_cells(lecture: Lecture) -> Iterator[str]:
    """A lecture is one sitting; its solutions count."""
    if not CELLS[0] <= len(lecture.cells) <= CELLS[1]:
        yield f"The lecture has {len(lecture.cells)} cells; it should have between {CELLS[0]} and {CELLS[1]}."


def short_lines(lecture: Lecture) -> Iterator[str]:
    """No line of code is cut or scrolls in the book; the address in the set-up cell may be long."""
    for place, cell in list(lecture.code)[1:]:
        for line in cell.source.splitlines():
            if len(line) > CODE_LINE:
                yield f"{place}: a line has {len(line)} characters, over {CODE_LINE}: {line.strip()[:40]}…"


def exercises_of_each_kind(lecture: Lecture) -> Iterator[str]:
    """Some exercises are derived, one writes a layer, and one commits to a prediction before it runs."""
    first_lines = lecture.exercises.values()
    if len(first_lines) < EXERCISES_AT_LEAST:
        yield f"There are {len(first_lines)} exercises; at least {EXERCISES_AT_LEAST} are needed."
    for words, least in EXERCISES_OF_KIND.items():
        count = sum(words in line.lower() for line in first_lines)
        if count < least:
            yield f"{count} exercises say “{words}” in their first line; at least {least} must."


def one_notation(lecture: Lecture) -> Iterator[str]:
    """Formulas are written as book/notation.md says, except where a paragraph speaks of the decks."""
    for place, cell in lecture.markdown:
        paragraphs = re.split(r"\n\s*\n", cell.source)
        formulas = [
            m[0] for text in paragraphs if not OF_THE_DECKS.search(text) for m in FORMULA.finditer(text)
        ]
        for pattern, instead in REPLACED:
            for formula in formulas:
                if match := re.search(pattern, formula):
                    yield f"{place} writes {match[0]} in {formula[:60]!r}; the course writes {instead}."
