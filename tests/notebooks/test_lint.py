"""Every lecture keeps every rule of CONTRIBUTING.md that a program can check."""

from __future__ import annotations

import pytest

from tools.lint import Lecture, rules_of
from tools.notebooks import LECTURES

NOTEBOOKS = sorted(LECTURES.glob("*.ipynb"))


def test_there_are_lectures():
    assert NOTEBOOKS


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        pytest.param(path, rule, id=f"{path.stem}-{rule.__name__}")
        for path in NOTEBOOKS
        for rule in rules_of(path)
    ],
)
def test_lecture_keeps(path, rule):
    problems = list(rule(Lecture(path)))
    assert not problems, "\n".join([f"{path.name}: {rule.__doc__}", *problems])
