"""Rules about folded cells: what is folded is folded everywhere, and the checks are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbformat import NotebookNode

from tools import formulas, setup_cell
from tools.lint.lecture import Lecture, where

TITLE = re.compile(r"# @title (\S.*)")
TAG = re.compile(r"\((\d+)\.(\d+)[a-z]*\)(?: to \(\1\.(\d+)[a-z]*\))?")

# what may be folded, by the first word of its title: the code alone, or what it prints with it
KINDS = {"Check": "hide-input", "Figure": "hide-input", "Set-up": "hide-input", "Solution": "hide-cell"}


def folded(lecture: Lecture) -> Iterator[str]:
    """A folded cell has a title, and is folded in the book, on Colab and in JupyterLab."""
    for place, cell in lecture.code:
        title = TITLE.match(cell.source)
        if not title and (not _marks(cell) or setup_cell.is_setup(cell)):
            continue
        kind = re.match(r"[\w-]*", title[1])[0] if title else ""
        if kind not in KINDS:
            yield f"{place} is folded; its first line must be # @title and one of {', '.join(KINDS)}."
        elif _marks(cell) != {KINDS[kind], "form", "hidden"}:
            yield f"{place} needs the tag {KINDS[kind]}, cellView form and jupyter.source_hidden."


def checks_folded(lecture: Lecture) -> Iterator[str]:
    """The set-up cell and every check of a formula are folded; a check's title names its formulas."""
    for _, cell in lecture.code:
        if setup_cell.is_setup(cell) and _marks(cell) != {"hide-input", "form", "hidden"}:
            yield "The set-up cell is not folded; make notebooks folds it."
    checked: dict[int, set[str | None]] = {}
    for check in formulas.checks(lecture.notebook):
        checked.setdefault(check.cell, set()).add(check.formula or check.tag)
    for index, tags in checked.items():
        cell = lecture.cells[index]
        first = cell.source.partition("\n")[0]
        named = _named(first)
        if not first.startswith("# @title Check ("):
            yield f"{where(index, cell)} holds a check; it must be a cell of its own, # @title Check (…)."
        elif None not in tags and named != tags:
            yield f"{where(index, cell)} checks {_in_brackets(tags)}, and its title must name just these."


def _named(title: str) -> set[str]:
    """The formulas that a title names, (6.1), (6.3) to (6.5), or in a lab a word: (resume)."""
    return set(re.findall(r"\(([a-z]+)\)", title)) | {
        f"{lecture}.{number}"
        for lecture, first, last in TAG.findall(title)
        for number in range(int(first), int(last or first) + 1)
    }


def _marks(cell: NotebookNode) -> set[str]:
    """What folds a cell: in the book, on Colab, in JupyterLab."""
    marks = {tag for tag in cell.metadata.get("tags", []) if tag.startswith("hide-")}
    if cell.metadata.get("cellView") == "form":
        marks.add("form")
    if cell.metadata.get("jupyter", {}).get("source_hidden") is True:
        marks.add("hidden")
    return marks


def _in_brackets(tags: set[str | None]) -> str:
    return ", ".join(f"({tag})" for tag in sorted(map(str, tags)))
