"""Every lecture keeps every rule of CONTRIBUTING.md that a program can check."""

from __future__ import annotations

import pytest

from tools.lint import RULES, Lecture
from tools.notebooks import LECTURES

NOTEBOOKS = sorted(LECTURES.glob("*.ipynb"))


def test_there_are_lectures():
    assert NOTEBOOKS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_lecture_keeps(path, rule):
    problems = list(rule(Lecture(path)))
    assert not problems, "\n".join([f"{path.name}: {rule.__doc__}", *problems])
