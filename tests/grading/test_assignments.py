"""The five assignments: nothing leaks, solutions earn everything, stubs nothing, wrong formulas less."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import torch

from tests.grading import local
from tests.grading.wrong_answers import RIGHT, WRONG
from tools import assignments, setup_cell
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


@pytest.fixture
def another_term(monkeypatch):
    """As if term.txt said so: the notebooks in the repository keep the word that they have."""
    for module in ("tools.grade.rubric", "tools.assignments"):
        monkeypatch.setattr(f"{module}.term", lambda: "another term")


@pytest.fixture
def written_term(monkeypatch):
    """The word in the instructor's editions, for answers that run among the solutions as they stand."""
    texts = [cell.source for number in NUMBERS for cell in nbformat.read(paths(number)[0], 4).cells]
    (word,) = set(re.findall(r'^TERM = "(.*)"', "\n".join(texts), re.M))
    monkeypatch.setattr("tools.grade.rubric.term", lambda: word)


@pytest.mark.parametrize("number", NUMBERS)
def test_both_editions_earn_what_they_should_and_nothing_leaks(number, tmp_path, another_term):
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


def test_the_command_says_what_is_earned_and_that_the_address_is_not_set(
    tmp_path, monkeypatch, capsys, another_term
):
    address = "https://github.com/YOUR_ACCOUNT/normalizing-flows-course"
    monkeypatch.setattr(setup_cell, "repository", lambda *_: address)
    monkeypatch.setattr(assignments, "release", functools.partial(assignments.release, out=tmp_path))
    assert assignments.main(["1"]) == 0
    said = capsys.readouterr()
    assert "solutions 76 of 76, untouched 0" in said.out
    assert "YOUR_ACCOUNT" in said.err
    assert "make repo URL=" in said.err


@pytest.mark.parametrize(
    ("address", "lectures"),
    [
        ("https://github.com/ada/flows", "https://ada.github.io/flows/nbs/{}.html"),
        ("https://git.example.org/ada/flows", "https://git.example.org/ada/flows/blob/main/nbs/{}.ipynb"),
    ],
)
def test_links_lead_to_lectures_from_wherever_the_file_is(address, lectures, monkeypatch):
    monkeypatch.setattr(setup_cell, "repository", lambda *_: address)
    for number in NUMBERS:
        edition = assignments.student_edition(nbformat.read(paths(number)[0], 4))
        links = re.findall(r"\]\(([^)\s]+)\)", edition.cells[0].source)
        assert links
        for link in links:
            name = Path(link).stem
            assert link == lectures.format(name)
            assert (ASSIGNMENTS.parent / f"{name}.ipynb").exists()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_cells_say_what_a_student_must_know(number, capsys):
    first, *others = assignments.student_edition(nbformat.read(paths(number)[0], 4)).cells
    assert "six significant digits" in first.source
    sentence = next(line for line in first.source.splitlines() if "you may import" in line)
    named = re.findall(r"`(\w+)`", sentence)
    assert named.pop() == "pandas"
    assert all(importlib.util.find_spec(name) for name in named)
    numbers = next(cell.source for cell in others if "STUDENT = 0" in cell.source)
    said = []
    for student in ("0", "4321"):
        exec(numbers.replace("STUDENT = 0", f"STUDENT = {student}"), {"torch": torch})
        said.append("STUDENT is still 0" in capsys.readouterr().out)
    assert said == [True, False]


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
def test_a_wrong_answer_loses_points(number, written_term):
    kept = []
    for question, code in WRONG[number]:
        result = local.result(number, question, **local.namespace(number, code))
        assert not result.person, (question, code, result.person)
        if result.total >= result.marks[0].question.points:
            kept.append((question, code))
    assert not kept


@pytest.mark.parametrize("number", NUMBERS)
def test_a_right_answer_that_looks_wrong_keeps_its_points(number, written_term):
    for question, code in RIGHT[number]:
        result = local.result(number, question, **local.namespace(number, code))
        assert not result.person
        assert not [check.why for check in result.marks[0].checks if check.why], (question, code)


def test_a_missing_module_and_a_small_part_cost_what_they_should():
    missing = local.result(5, "5.10", project_train=None)
    assert "imports only torch, numpy, scipy" in missing.marks[0].checks[0].why
    few = local.namespace(5, "project_train = project_train[:390]")
    assert [check.earned for check in local.result(5, "5.10", **few).marks[0].checks] == [0, 5, 5]


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
    instructors = nbformat.read(paths(number)[0], 4)
    for word in (term(), "another term"):
        monkeypatch.setattr(assignments, "term", lambda word=word: word)
        text = "\n".join(cell.source for cell in assignments.student_edition(instructors).cells)
        assert assignments.TERM.findall(text) == [f'TERM = "{word}"']
    monkeypatch.setattr("tools.grade.rubric.term", lambda: "another term")
    assert rubric.constants(7).random() != draws[7]


def test_the_number_of_layers_is_not_the_same_for_everyone():
    load(3)
    rubric = sys.modules["rubric_3"]
    values = Counter(rubric.mixing(rubric.variant(student)[1]) for student in range(100))
    assert len(values) >= 5
    assert max(values.values()) <= 35


def test_names_tell_the_assignments_apart():
    everyone = [name for number in NUMBERS for name in load(number).names]
    assert len(everyone) == len(set(everyone))
