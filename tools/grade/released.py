"""The edition that students were given: what in their notebooks is not theirs."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from tools.grade.notebooks import Notebook

NUMBER = re.compile(r"^STUDENT *=.*$", re.M)


@dataclass(frozen=True)
class Given:
    """Its code and its Markdown, cell by cell."""

    code: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def asks_number(self) -> bool:
        """Whether students are to write a number of theirs into it."""
        return any(NUMBER.search(source) for source in self.code)

    def is_code_of(self, notebook: Notebook) -> bool:
        """Whether the notebook's code is what was given, with a number or without."""
        return bool(self.code) and _plain(self.code) == _plain(notebook.code)


@functools.cache
def given(instructors: Path | None) -> Given:
    """The students' edition of an instructor's; without one, nothing is known to be given."""
    if instructors is None:
        return Given()
    from tools.assignments import student_edition  # which grades its editions with this package

    cells = student_edition(nbformat.read(instructors, 4)).cells
    code = tuple(cell.source for cell in cells if cell.cell_type == "code")
    return Given(code, tuple(cell.source for cell in cells if cell.cell_type != "code"))


def _plain(cells: Sequence[str]) -> list[list[str]]:
    """Without a number, and without the blanks that editors add at the ends of lines and cells."""
    return [
        [line.rstrip() for line in NUMBER.sub("", source).strip().splitlines()]
        for source in cells
        if source.strip()
    ]
