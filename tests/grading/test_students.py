"""A student's number: drawn from as the notebook draws, and sent to a person if it is none."""

from __future__ import annotations

import csv
import random

import pytest

from tests.grading import course
from tests.grading.local import judged
from tools.grade import report, students
from tools.grade.judging import near
from tools.grade.records import Result
from tools.grade.rubric import Rubric, load, term


@pytest.fixture
def rubric(tmp_path) -> Rubric:
    """The small course's, asking for a constant of the student's alone."""
    asking = load(2, course.write(tmp_path / "course"))
    asking.questions = []

    @asking.question("2.1", "Your constant", 6, "constant")
    def constant(probe):
        want = asking.constants(probe.student).random()
        probe.check(6, "constant", lambda: near(probe.value("constant"), want))

    return asking


def handed_in(rubric: Rubric, name: str, **names: object) -> Result:
    """A notebook that draws its constant by the line that notebooks have for it."""
    drawn = random.Random(f"{term()}, assignment 2, student {names.get('STUDENT')}").random()
    one = judged(rubric, {"constant": drawn} | names)
    one.record.name = one.record.key = name
    return one


@pytest.mark.parametrize(
    ("number", "points", "column", "sentence"),
    [
        (123456, 6, "123456", ""),
        ("0123456", 6, "123456", ""),
        ("s1234567", 6, "s1234567", "is “s1234567”, and digits only were asked for"),
        (123.0, 6, "123.0", "is “123.0”"),
        (-5, 6, "-5", "is “-5”"),
        (0, 6, "0", "The student number is 0, as it was given out"),
        ("", 6, "", "is “”"),
        (True, 0, "", "There is no student number"),
        (None, 0, "", "There is no student number"),
    ],
)
def test_a_number_is_drawn_from_as_it_stands_and_a_bad_one_is_said(
    number, points, column, sentence, rubric, tmp_path
):
    one = handed_in(rubric, "Ada", STUDENT=number)
    students.note_numbers([one], rubric)
    assert one.total == points
    assert [sentence in said for said in one.person] == [True] * bool(sentence)
    report.write(rubric, [one], tmp_path)
    (row,) = csv.DictReader((tmp_path / "grades.csv").read_text("utf-8-sig").splitlines())
    assert row["student"].removeprefix("'") == column


def test_one_number_in_two_spellings_is_shared_and_nobodys_is_not(rubric):
    spelt = {"Ada": 123456, "Bob": "0123456", "Cleo": 0, "Dan": 0, "Eve": 7}
    results = [handed_in(rubric, name, STUDENT=number) for name, number in spelt.items()]
    students.note_numbers(results, rubric)
    ada, bob, cleo, dan, eve = (" ".join(one.person) for one in results)
    assert "The student number 123456 is also given by Bob" in ada
    assert "also given by Ada" in bob
    assert "as it was given out" in cleo
    assert "as it was given out" in dan
    assert not eve


def test_a_course_that_asks_for_no_number_needs_none(rubric):
    rubric.edition = None
    one = handed_in(rubric, "Ada", STUDENT=0)
    students.note_numbers([one], rubric)
    assert not one.person
