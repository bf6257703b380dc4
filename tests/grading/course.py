"""A small course of two assignments, in plain Python so that a notebook runs in a fraction of a second."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

RUBRIC = """
import math
import torch
from tools.grade.judging import near, pair
from tools.grade.rubric import Rubric

rubric = Rubric(2, "A small one")
Z, V, X = [0.5, -1.0, 2.0], [3.0, -4.0, 12.0], [1.0, 2.5, 7.0]
WANTED = torch.tensor(Z), torch.tensor(V) / 13


@rubric.question("2.1", "A scaled point", 10, "scaled")
def scaled(probe):
    for s in (2.5, -0.5):
        probe.check(2, f"x, s = {s}", lambda: near(pair(probe, "scaled", Z, s)[0], s * WANTED[0]))
        want = torch.full((3,), math.log(abs(s)))
        probe.check(3, f"log-slopes, s = {s}", lambda: near(pair(probe, "scaled", Z, s)[1], want))


@rubric.question("2.2", "A unit vector", 6, "unit")
def unit(probe):
    probe.check(6, "a hidden check of the direction", lambda: near(probe.ask("unit", V), WANTED[1]))


@rubric.question("2.3", "The average", 6, "average")
def average(probe):
    probe.check(6, "three numbers", lambda: near(probe.ask("average", X), 3.5))


rubric.written("2.4", "Why", 8)
"""
OTHER = """
from tools.grade.rubric import Rubric
rubric = Rubric(3, "Another")
rubric.question("3.1", "Something else", 100, "something_else")(lambda probe: None)
"""

START = "import math\nSTUDENT = {student}"
SCALED = """def scaled(z, s):
    return [s * x for x in z], [math.log(abs(s)) for x in z]"""
UNIT = """def unit(v):
    return [x / math.hypot(*v) for x in v]"""
AVERAGE = "average = lambda x: sum(x) / len(x)"
ANSWERS = (SCALED, UNIT, AVERAGE)
STUBS = ("import math\nSTUDENT = 0", "def scaled(z, s):\n    ...  # your code")
GIVEN = (
    "## 2.4 Why (written, 8 points)\n\nSay why:\n\n$$\nx = x\n$$",
    "### Answer 2.4\n\n*Write here; formulas between dollar signs.*",
    "## Before you hand in\n\nRestart, and run everything from top to bottom.",
)
FULL = 22  # 10 + 6 + 6


def write(folder: Path) -> Path:
    """Write the course's folder of assignments."""
    folder.mkdir()
    for number, rubric in {2: RUBRIC, 3: OTHER}.items():
        cells = [*map(new_code_cell, STUBS), *map(new_markdown_cell, GIVEN)]
        nbformat.write(new_notebook(cells=cells), folder / f"{number}_small.ipynb")
        (folder / f"{number}_rubric.py").write_text(rubric, "utf-8")
    return folder
