"""More than forty submissions in three layouts: each ends in the right points, or with a person."""

from __future__ import annotations

import csv
import html

import pytest

from tests.grading import layouts
from tests.grading.batch import Case, cases
from tools.grade import by_hand, grading, report, submissions
from tools.grade.rubric import load, load_all
from tools.grade.session import Limits

LIMITS = Limits(cell_seconds=8, ask_seconds=3, grace=2, processes=64)
BATCH = list(cases())


def test_the_batch_is_large_and_its_numbers_differ():
    assert len(BATCH) >= 40
    assert len({case.student for case in BATCH}) == len(BATCH) - 1  # two share a number


@pytest.mark.parametrize("layout", ["moodle", "canvas", "flat"])
def test_every_submission_ends_in_the_right_points_or_with_a_person(layout, box, tmp_path):
    place = ["moodle", "canvas", "flat"].index(layout)
    # the two that share a number must lie in one batch
    mine = [case for i, case in enumerate(BATCH[:-2]) if i % 3 == place] + (BATCH[-2:] if place == 2 else [])
    layouts.write(layout, mine, tmp_path / "in")
    rubric, out = load(2), tmp_path / "out"
    found = submissions.find(tmp_path / "in")
    assert {one.layout for one in found} == {layout}
    assert len(found) == len(mine)

    others = [other for other in load_all() if other.number != 2]
    results = [result for result, _ in grading.grade_all(found, rubric, others, box, LIMITS, out, workers=1)]
    grading.note_shared_numbers(results)
    by_hand.apply(results, out)
    by_hand.write(results, out)
    report.write(rubric, results, out)

    by_name = {result.record.name.casefold(): result for result in results}
    problems = [said for case in mine if (said := _differs(case, by_name[case.name.casefold()], rubric))]
    assert not problems, "\n".join(problems)
    rows = list(csv.DictReader((out / "grades.csv").read_text("utf-8-sig").splitlines()))
    assert {row["name"].lstrip("'").casefold() for row in rows} == set(by_name)
    assert not list((tmp_path).rglob("hello"))


def _differs(case: Case, result: grading.Result, rubric: object) -> str:
    """What is not as it should be, in a line."""
    page = report.page(rubric, result)
    seen = f"{case.name}: {result.total:g} points, {result.person}, {result.record.troubles}"
    if case.person:
        if not any(case.person in sentence for sentence in result.person):
            return f"{seen}; expected a person to be told “{case.person}”"
    elif result.person:
        return f"{seen}; expected no person"
    if case.points is not None and result.total != case.points:
        checks = [(check.says, check.why) for mark in result.marks for check in mark.checks if check.why]
        return f"{seen}; expected {case.points} points. {checks}"
    if case.trouble and case.trouble not in html.unescape(page):
        return f"{seen}; expected the page to say “{case.trouble}”"
    if "<script" in page.replace("<script>MathJax", ""):
        return f"{case.name}: a script of the student's is on the page"
    return ""
