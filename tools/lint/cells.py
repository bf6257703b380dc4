"""Rules about what ran: order, outputs, the set-up cell, and a check for every formula."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tools import formulas, setup_cell
from tools.lint.lecture import Lecture, where


def executed_in_order(lecture: Lecture) -> Iterator[str]:
    """Code cells carry the counts 1 … n, as after one run from top to bottom."""
    for count, (place, cell) in enumerate(lecture.code, 1):
        if cell.execution_count != count:
            yield f"{place} has the count {cell.execution_count}, expected {count}; run make notebooks."
            return


def clean_outputs(lecture: Lecture) -> Iterator[str]:
    """No cell failed, wrote to stderr or shows a widget."""
    for place, cell in lecture.code:
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{place} failed with {output.ename}."
            if output.get("name") == "stderr":
                yield f"{place} wrote to stderr: {output.text.strip()[:80]}"
            if any("widget" in kind or "javascript" in kind for kind in output.get("data", {})):
                yield f"{place} shows a widget or a script, which a page without a kernel cannot run."


def same_setup_cell(lecture: Lecture) -> Iterator[str]:
    """The second cell is the set-up cell, word for word, and no other cell repeats it."""
    second = lecture.cells[1] if len(lecture.cells) > 1 else None
    if second is None or second.cell_type != "code" or second.source != setup_cell.source():
        yield "The second cell is not the set-up cell of tools/setup_cell.py; run make notebooks."
    for place, cell in list(lecture.code)[1:]:
        if setup_cell.is_setup(cell):
            yield f"{place} is a second set-up cell; there must be one."


def every_formula_checked(lecture: Lecture) -> Iterator[str]:
    r"""Tags run (6.1), (6.2), … in order; each has one check below it, and each check its tag."""
    tags = formulas.tags(lecture.notebook)
    checks = formulas.checks(lecture.notebook)
    expected = [f"{lecture.number}.{k}" for k in range(1, len(tags) + 1)]
    for tag, name in zip(tags, expected, strict=True):
        place = where(tag.cell, lecture.cells[tag.cell])
        if not tag.latex:
            yield f"{place}: the tag ({tag.tag}) stands outside a $$…$$ formula."
        if tag.tag != name:
            yield f"{place}: the tag ({tag.tag}) comes where ({name}) is next."
            break
    if not tags:
        yield "The lecture has no tagged formula."
    cell_of = {tag.tag: tag.cell for tag in tags}
    count = Counter(check.tag for check in checks)
    for tag in tags:
        if not count[tag.tag]:
            yield f"Formula ({tag.tag}) has no check; a cell below must end in check.…(“{tag.tag}”, …)."
    for check in checks:
        place = where(check.cell, lecture.cells[check.cell])
        if check.tag is None:
            yield f"{place}: check.{check.function} must stand at the top level, its tag a plain string."
        elif check.formula not in cell_of:
            yield f"{place} checks ({check.tag}), but the lecture has no formula ({check.formula})."
        elif check.cell < cell_of[check.formula]:
            yield f"{place} checks ({check.tag}) above the formula; it must stand below."
        elif count[check.tag] > 1:
            yield f"{place}: ({check.tag}) is checked {count[check.tag]} times; letter one “{check.tag}b”."
        elif check.tag != check.formula and not count[check.formula]:
            yield f"{place} checks ({check.tag}) though ({check.formula}) itself has no check."
        elif not check.last:
            yield f"{place} checks ({check.tag}) and goes on; a check must be the cell's last statement."
        elif not check.line:
            yield f"{place}: the check of ({check.tag}) left no ✓ line in the outputs; run make notebooks."
