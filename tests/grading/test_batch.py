"""More than forty submissions in three layouts: each ends in the right points, or with a person."""

from __future__ import annotations

import csv
import html
from pathlib import Path

import pytest

from tests.grading import course, layouts
from tests.grading.batch import Case, cases
from tools.grade import by_hand, grading, report, students, submissions
from tools.grade.rubric import load_all
from tools.grade.session import Limits

LIMITS = Limits(cell_seconds=1.5, ask_seconds=1.5, grace=1, processes=64, memory=600 << 20)
ROOMY = Limits(cell_seconds=30, ask_seconds=20)  # importing torch takes its time


def test_the_batch_is_large_and_its_numbers_differ():
    batch = list(cases({}))
    assert len(batch) >= 40
    assert len({case.student for case in batch}) == len(batch) - 1  # two share a number


@pytest.mark.parametrize("layout", ["moodle", "canvas", "flat"])
def test_every_submission_ends_in_the_right_points_or_with_a_person(layout, box, tmp_path):
    assignments, handed_in, out = course.write(tmp_path / "course"), tmp_path / "in", tmp_path / "out"
    places = {
        "RUBRIC": assignments / "2_rubric.py",
        "NEIGHBOUR": handed_in,
        "GRADEBOOK": out / "grades.csv",
    }
    # what imports torch in one folder, and in the same the two that must lie in one batch
    batch = [(case, case.slow or case.student == 7) for case in cases(places)]
    quick = [case for case, together in batch if not together]
    mine = {
        "moodle": quick[::2],
        "canvas": quick[1::2],
        "flat": [case for case, together in batch if together],
    }[layout]
    layouts.write(layout, mine, handed_in)
    out.mkdir()
    places["GRADEBOOK"].write_text("The old one.")
    found = submissions.find(handed_in)
    assert {one.layout for one in found} == {layout}
    assert len(found) == len(mine)

    rubric, *others = load_all(assignments)
    limits = ROOMY if layout == "flat" else LIMITS
    results = [result for result, _ in grading.grade_all(found, rubric, others, box, limits, out)]
    assert places["GRADEBOOK"].read_text() == "The old one."
    assert all(place.exists() for place in places.values())
    students.note_numbers(results, rubric)
    by_hand.apply(results, out)
    by_hand.write(results, out)
    report.write(rubric, results, out)

    by_name = {result.record.name.casefold(): result for result in results}
    problems = [said for case in mine if (said := _differs(case, by_name[case.name.casefold()], rubric))]
    assert not problems, "\n".join(problems)
    rows = list(csv.DictReader((out / "grades.csv").read_text("utf-8-sig").splitlines()))
    assert {row["name"].lstrip("'").casefold() for row in rows} == set(by_name)
    assert not Path("/usr/hello").exists()


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
