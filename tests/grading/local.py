"""Asks a namespace of this process, as a session would ask a notebook's."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import nbformat
import torch

from tools.grade import grading, inside
from tools.grade.rubric import Reply, Rubric, load, paths


def run(path: Path) -> dict[str, Any]:
    """The names that a notebook leaves behind."""
    names: dict[str, Any] = {}
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    return names


@functools.cache
def _namespace(number: int) -> dict[str, Any]:
    """What the instructor's edition leaves behind, run once."""
    return run(paths(number)[0])


def result(number: int, question: str, **replaced: Any) -> grading.Result:
    """What the instructor's edition earns on one question with some names replaced."""
    torch.set_default_dtype(torch.float64)
    rubric = load(number)
    rubric.questions = [one for one in rubric.questions if one.id == question]
    return judged(rubric, _namespace(number) | replaced)


def judged(rubric: Rubric, names: dict[str, Any]) -> grading.Result:
    """What these names earn."""
    record = grading.Record("k", "k", "k", "", "flat")

    def reply_to(request: dict[str, Any]) -> Reply:
        return json.loads(json.dumps(inside.call(names, json.loads(json.dumps(request)))))

    return grading.judge(record, rubric, reply_to)


def namespace(number: int, source: str) -> dict[str, Any]:
    """Names that a piece of code binds when it runs among the solutions; other names keep theirs."""
    torch.set_default_dtype(torch.float64)
    names = dict(_namespace(number))
    exec(source, names)
    before = _namespace(number)
    return {name: value for name, value in names.items() if before.get(name) is not value}
