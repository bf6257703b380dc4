"""A folder that was graded is graded again: late and new notebooks, wrong commands, and nothing is lost."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.grading import course
from tests.grading.batch import notebook
from tools.grade import by_hand, tables
from tools.grade.__main__ import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(box, capsys, tmp_path) -> Run:
    """Give a command for the small course; returns its status and what it said."""
    assignments = course.write(tmp_path / "course")

    def command(*words: object) -> tuple[int, str, str]:
        given = [*map(str, words), "--assignments", str(assignments)]
        status = main(given if "--out" in given else [*given, "--out", str(tmp_path / "out")])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def hand_in(place: Path, student: int, *more: str, written: str = "It is so.") -> None:
    """Write a solved notebook."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(notebook(course.START.format(student=student), *course.ANSWERS, *more, written=written))


def type_in(table: Path, column: str, **values: str) -> None:
    """Fill a column for the rows of each name, as people do; ``Ada_2_4`` is her question 2.4."""
    rows = tables.read(table)
    for name, value in values.items():
        who, _, question = name.partition("_")
        for row in rows:
            if row["name"] == who and question.replace("_", ".") in row.get("question", ""):
                row[column] = value
    tables.save(table, list(rows[0]), [list(row.values()) for row in rows])


def grades(tmp_path: Path) -> dict[str, tuple[str, str]]:
    return {row["name"]: (row["total"], row["state"]) for row in tables.read(tmp_path / "out" / "grades.csv")}


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_points_by_hand_outlive_late_notebooks_and_wrong_commands(run, tmp_path):
    points, out = tmp_path / "out" / by_hand.POINTS, tmp_path / "out"
    for student, name in enumerate(("Ada", "Bob"), 1):
        hand_in(tmp_path / "all" / name / "a.ipynb", student)
    hand_in(tmp_path / "late" / "Cleo" / "a.ipynb", 3)
    (tmp_path / "all" / "Dan").mkdir()
    (tmp_path / "all" / "Dan" / "a.ipynb").write_bytes(b"no notebook")
    (tmp_path / "empty").mkdir()
    run("2", tmp_path / "all")
    type_in(points, "points", Ada="7", Bob="3")
    type_in(tmp_path / "out" / by_hand.PERSON, "settled", Dan="yes")

    status, said, _ = run("2", tmp_path / "late", "--again", "Ada")
    assert status == 0
    assert "3 of earlier runs are not in" in said
    read, waits = "complete", "written answers to read"
    assert grades(tmp_path) == {
        "Ada": ("29", read),
        "Bob": ("25", read),
        "Cleo": ("22", waits),
        "Dan": ("0", read),
    }
    type_in(points, "points", Cleo="8")
    before = everything(out)
    for words, sentence in {
        (
            "2",
            tmp_path / "empty",
        ): "holds nobody's work: a folder or a notebook for each student was expected",
        (
            "3",
            tmp_path / "all",
        ): "holds assignment 2, not 3. Give the number 2, or another folder after --out",
        ("regrade", "3"): "holds assignment 2, not 3",
        ("similar", "3"): "holds assignment 2, not 3",
        ("regrade", "2", "--out", tmp_path / "otu"): "holds nothing that was graded",
    }.items():
        status, _, said = run(*words)
        assert (status, sentence in said) == (2, True), said
        assert everything(out) == before

    status, _, said = run("2", tmp_path / "late", "--drop-absent")
    assert said.count("the row stays") == 2
    assert grades(tmp_path) == {"Cleo": ("30", read)}
    assert sorted(row["points"] for row in tables.read(points)) == ["3", "7", "8"]
    assert [row["settled"] for row in tables.read(out / by_hand.PERSON)] == ["yes"]
    assert points.with_name("points_by_hand.csv.bak").read_bytes() == before[points]


def test_what_is_handed_in_anew_is_read_anew(run, tmp_path):
    points, person = tmp_path / "out" / by_hand.POINTS, tmp_path / "out" / by_hand.PERSON
    ada, bob = (tmp_path / "in" / name / "a.ipynb" for name in ("Ada", "Bob"))
    hand_in(ada, 1)
    hand_in(bob, 2)
    bob.write_bytes(b"no notebook")
    run("2", tmp_path / "in")
    key = next(row["key"] for row in tables.read(points) if row["name"] == "Ada")
    points.write_text(points.read_text("utf-8-sig") + f"{key},Ada,Q2.3,5,6,,,\n", "utf-8")
    type_in(points, "points", Ada_2_4="2", Bob="0")
    type_in(points, "comment", Ada_2_4="too short")
    type_in(person, "settled", Bob="yes")
    run("regrade", "2")
    assert grades(tmp_path) == {"Ada": ("23", "complete"), "Bob": ("0", "complete")}

    bob.write_bytes(b"still no notebook")
    assert "- Bob: a.ipynb is not a notebook" in run("2", tmp_path / "in")[1]
    assert grades(tmp_path)["Bob"] == ("0", "needs a person")

    hand_in(ada, 1, "better = True", written="It is so, because of that.")
    hand_in(bob, 2)
    for words in (("2", tmp_path / "in"), ("regrade", "2")):  # and it stays so until somebody has looked
        status, said, _ = run(*words)
        assert status == 0
        assert grades(tmp_path) == {"Ada": ("22", "needs a person"), "Bob": ("22", "needs a person")}
        assert "- Ada, question 2.4: handed in anew, was 2 (“too short”). Read it again." in said
        assert "- Ada: Points by hand were for what was there before: 2.3 (handed in anew, was 5)." in said
        assert "2.1 (handed in anew, was 0), 2.2 (handed in anew, was 0)" in said
        assert "handed in anew, was 2" in (tmp_path / "out" / "written" / "2.4.html").read_text("utf-8")
    type_in(points, "points", Ada_2_4="6", Bob_2_4="7")
    type_in(person, "settled", Ada="yes", Bob="yes")
    run("regrade", "2")
    assert grades(tmp_path) == {"Ada": ("28", "complete"), "Bob": ("29", "complete")}


def test_a_scan_added_beside_a_kept_notebook_is_named_and_read(run, tmp_path):
    hand_in(tmp_path / "in" / "Ada" / "a.ipynb", 1, written="")
    run("2", tmp_path / "in")
    type_in(tmp_path / "out" / by_hand.POINTS, "points", Ada="0")
    (tmp_path / "in" / "Ada" / "scan.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "in" / "Ada" / "a.ipynb").rename(tmp_path / "in" / "Ada" / "b.ipynb")
    assert "  kept  Ada: 22/22" in run("2", tmp_path / "in")[1]
    page = (tmp_path / "out" / "written" / "2.4.html").read_text("utf-8")
    assert "scan.pdf" in page
    assert "In <code>b.ipynb</code>" in page
    assert grades(tmp_path) == {"Ada": ("22", "written answers to read")}


def test_the_advice_on_two_versions_in_a_zip_can_be_followed(run, tmp_path):
    entry = "Ada_17_assignsubmission_file"
    for name, more in {"a.ipynb": "x = 1", "b.ipynb": "x = 2"}.items():
        hand_in(tmp_path / entry / name, 1, more)
    with zipfile.ZipFile(tmp_path / "moodle.zip", "w") as opened:
        for path in (tmp_path / entry).iterdir():
            opened.write(path, f"{entry}/{path.name}")
    said = run("2", tmp_path / "moodle.zip")[1]
    assert "Leave only the one that counts in the student's folder and grade that folder" in said
    unpacked = tmp_path / "out" / "submissions" / "moodle"
    (unpacked / entry / "a.ipynb").unlink()
    assert "Ada: 22/22" in run("2", unpacked)[1]
