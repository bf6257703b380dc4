"""A lecture as the rules see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import nbformat
from nbformat import NotebookNode

EXERCISE = re.compile(r"^\*\*(?:Exercise )?(\d+\.\d+)\*{0,2}(.*)", re.MULTILINE)
FOLD = re.compile(r"<details>.*?</details>", re.DOTALL)


class Lecture:
    """A notebook with what the rules look at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notebook = nbformat.read(path, as_version=4)

    @property
    def cells(self) -> list[NotebookNode]:
        """All cells."""
        return self.notebook.cells

    @property
    def code(self) -> Iterator[tuple[str, NotebookNode]]:
        """The code cells, each with its place in words."""
        return ((where(i, cell), cell) for i, cell in enumerate(self.cells) if cell.cell_type == "code")

    @property
    def markdown(self) -> Iterator[tuple[str, NotebookNode]]:
        """The Markdown cells, each with its place in words."""
        return ((where(i, cell), cell) for i, cell in enumerate(self.cells) if cell.cell_type == "markdown")

    @cached_property
    def number(self) -> str:
        """The lecture's number without a leading zero, from the file's name."""
        return self.path.name.split("_")[0].lstrip("0")

    @cached_property
    def text(self) -> str:
        """All Markdown, cells apart by an empty line."""
        return "\n\n".join(cell.source for _, cell in self.markdown)

    @cached_property
    def exercises(self) -> dict[str, str]:
        """Each exercise's number with the rest of its first line."""
        _, _, after = self.text.partition("\n## Exercises")
        section = FOLD.sub("", re.split(r"^## ", after, flags=re.MULTILINE)[0])
        return dict(EXERCISE.findall(section))


Rule = Callable[[Lecture], Iterator[str]]


def where(index: int, cell: NotebookNode) -> str:
    """Name a cell by its place and its first line."""
    first = next((line for line in cell.source.splitlines() if line.strip()), "empty")
    return f"Cell {index + 1} (“{first[:50]}”)"
