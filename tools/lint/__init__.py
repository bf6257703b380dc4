"""Holds the notebooks to CONTRIBUTING.md: ``python -m tools.lint [06 07 labs …]``.

A rule takes a lecture and yields sentences, one for each thing to repair.
"""

from __future__ import annotations

from pathlib import Path

from tools.lint import cells, folds, form, plan, text
from tools.lint.lecture import Lecture, Rule
from tools.notebooks import LABS

RULES: list[Rule] = [
    cells.executed_in_order,
    cells.clean_outputs,
    cells.same_setup_cell,
    cells.every_formula_checked,
    folds.folded,
    folds.checks_folded,
    form.few_cells,
    form.short_lines,
    form.exercises_of_each_kind,
    form.one_notation,
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

# A lab proves nothing and asks nothing: it has no numbered formulas, no objectives and no exercises.
FOR_LECTURES_ALONE = (
    cells.every_formula_checked,
    form.few_cells,
    form.exercises_of_each_kind,
    plan.planned,
    plan.right_length,
    plan.exercises_solved,
)
LAB_RULES = [rule for rule in RULES if rule not in FOR_LECTURES_ALONE]


def rules_of(path: Path) -> list[Rule]:
    """Return the rules for a notebook, by the folder it lies in."""
    return LAB_RULES if path.parent.name == LABS else RULES


__all__ = ["LAB_RULES", "RULES", "Lecture", "Rule", "rules_of"]
