"""The five assignments: nothing leaks, solutions earn everything, stubs nothing, wrong formulas less."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

from tests.grading import local
from tests.grading.wrong_answers import WRONG
from tools import assignments
from tools.grade.rubric import ASSIGNMENTS, load, paths, term
from tools.setup_cell import source

NUMBERS = sorted(int(path.name.split("_")[0]) for path in ASSIGNMENTS.glob("[0-9]*_rubric.py"))


def rubric_source(number: int) -> str:
    return paths(number)[1].read_text("utf-8")


def edition_of(student: int, number: int, folder: Path) -> Path:
    """The instructor's edition as that student would hand it in."""
    text = paths(number)[0].read_text("utf-8")
    assert text.count("STUDENT = 0") == 1
    path = folder / "solutions.ipynb"
    path.write_text(text.replace("STUDENT = 0", f"STUDENT = {student}"), "utf-8")
    return path


@pytest.mark.parametrize("number", NUMBERS)
def test_both_editions_earn_what_they_should_and_nothing_leaks(number, tmp_path):
    rubric = load(number)
    # the wrong answers below lose their points as student 0; here the solutions earn them with other numbers
    solved = assignments.score(edition_of(4321, number, tmp_path), rubric)
    assert solved.student == 4321
    untouched = local.judged(rubric, local.run(assignments.release(number, tmp_path)))
    lost = [
        (mark.question.id, check.says, check.why)
        for mark in solved.marks
        for check in mark.checks
        if check.why
    ]
    assert not lost
    for mark in solved.marks:
        if mark.question.judge:
            assert mark.earned == mark.question.points == sum(check.points for check in mark.checks)
    assert untouched.total == 0
    assert not solved.record.troubles
    assert not solved.person
    assert not untouched.person


@pytest.mark.parametrize("number", NUMBERS)
def test_a_students_edition_holds_no_secret_in_any_corner(number, tmp_path):
    instructors = nbformat.read(paths(number)[0], 4)
    data = assignments.release(number, tmp_path).read_bytes()
    assert len(list(assignments.secrets(instructors, rubric_source(number)))) > 60
    students = nbformat.reads(data.decode(), 4)
    assert not any(cell.metadata or cell.get("outputs") or cell.get("attachments") for cell in students.cells)
    first = next(cell for cell in students.cells if cell.cell_type == "code")
    assert first.source == source()  # which installs flowlib on Colab
    for cell in students.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)


def test_a_leak_is_found_wherever_it_is():
    instructors = nbformat.read(paths(2)[0], 4)
    secret = next(line for line in assignments.secrets(instructors, rubric_source(2)) if "softplus" in line)
    places = [
        lambda nb: nb.cells[3].metadata.update(note=f"see {secret}"),
        lambda nb: nb.metadata.update(author=secret),
        lambda nb: nb.cells[0].update(source=nb.cells[0].source + secret),
        lambda nb: nb.cells[1].update(outputs=[nbformat.v4.new_output("stream", text=f"{secret}\n")]),
    ]
    for place in places:
        edition = assignments.student_edition(instructors)
        place(edition)
        assert assignments.leaks(instructors, rubric_source(2), nbformat.writes(edition).encode())


def test_a_forgotten_end_mark_stops_the_release(tmp_path):
    path, rubric = paths(2)
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("# END SOLUTION", "", 1)
    nbformat.write(notebook, tmp_path / path.name)
    (tmp_path / rubric.name).write_text(rubric.read_text("utf-8"), "utf-8")
    with pytest.raises(assignments.Leak):
        assignments.release(2, tmp_path / "out", tmp_path)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_wrong_answer_loses_points(number):
    kept = []
    for question, code in WRONG[number]:
        result = local.result(number, question, **local.namespace(number, code))
        assert not result.person, (question, code, result.person)
        if result.total >= result.marks[0].question.points:
            kept.append((question, code))
    assert not kept


@pytest.mark.parametrize("number", NUMBERS)
def test_every_question_has_wrong_answers(number):
    asked = {question.id for question in load(number).questions if question.judge}
    assert {question for question, _ in WRONG[number]} == asked


@pytest.mark.parametrize("number", NUMBERS)
def test_questions_stand_in_the_notebook_as_in_the_rubric(number):
    rubric = load(number)
    text = "\n".join(cell.source for cell in nbformat.read(paths(number)[0], 4).cells)
    stated = re.findall(r"^## (\d\.\d+) (.*) \((?:written, )?(\d+) points\)$", text, re.M)
    assert stated == [(q.id, q.title, f"{q.points:g}") for q in rubric.questions]
    assert rubric.points == 100
    assert rubric.title in text
    for question in rubric.questions:
        assert (f"### Answer {question.id}\n" in text) == (question.judge is None)
        assert all(re.search(rf"\b{name}\b", text) for name in question.names)


@pytest.mark.parametrize("number", NUMBERS)
def test_variants_differ_and_the_new_terms_too(number, monkeypatch):
    rubric = load(number)
    draws = {student: rubric.constants(student).random() for student in range(50)}
    assert len(set(draws.values())) == 50
    assert f'TERM = "{term()}"' in "".join(cell.source for cell in nbformat.read(paths(number)[0], 4).cells)
    monkeypatch.setattr("tools.grade.rubric.term", lambda: "another term")
    assert rubric.constants(7).random() != draws[7]


def test_names_tell_the_assignments_apart():
    everyone = [name for number in NUMBERS for name in load(number).names]
    assert len(everyone) == len(set(everyone))
