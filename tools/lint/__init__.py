"""Holds the lectures to CONTRIBUTING.md: ``python -m tools.lint [06 07 …]``.

A rule takes a lecture and yields sentences, one for each thing to repair.
"""

from __future__ import annotations

from tools.lint import cells, plan, text
from tools.lint.lecture import Lecture, Rule

RULES: list[Rule] = [
    cells.executed_in_order,
    cells.clean_outputs,
    cells.same_setup_cell,
    cells.every_formula_checked,
    plan.planned,
    plan.right_length,
    plan.small,
    plan.figures_described,
    plan.exercises_solved,
    text.portable_markdown,
    text.plain_code,
    text.no_absolute_paths,
    text.links_resolve,
    text.references_known,
]

__all__ = ["RULES", "Lecture", "Rule"]
