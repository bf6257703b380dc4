# ruff: noqa: E501  (platforms' tables, a line each)
"""What comes from the platforms and what goes back: names, zips, worksheets, feedback, points by hand."""

from __future__ import annotations

import csv
import io
import zipfile

import pytest

from tests.grading import course
from tests.grading.batch import notebook
from tools.grade import by_hand, grading, report, submissions, worksheet
from tools.grade.rubric import Check, Rubric

NAMES = ["Müller, Zoë", "عمر الخيام", "Ada 🦊 Lovelace", 'O"Brien; <i>Pat', "=SUM(A1)", "石川 ゆり"]


def tiny_rubric() -> Rubric:
    rubric = Rubric(2, "A title")
    rubric.question("2.1", "Code", 6, "planar")(lambda probe: None)
    rubric.written("2.2", "Words", 4)
    return rubric


def result(
    rubric: Rubric, name: str, id: str, layout: str, entry: str, earned: float = 5.0
) -> grading.Result:
    one = submissions.Submission(entry, name, id, layout)
    record = grading.Record(one.key, entry, name, id, layout, file="a.ipynb", code=["<b>x</b> = 1"])
    record.written = {"2.2": "It is $x < 1$ <script>alert(1)</script>"}
    record.troubles = {"0": "NameError: <script>"}
    first, second = rubric.questions
    check = Check("a check", 6, earned, "It is off by 1 <script>.")
    return grading.Result(record, [grading.Mark(first, earned, [check]), grading.Mark(second, None, [])], [])


def test_a_zip_writes_nowhere_else(tmp_path):
    packed = tmp_path / "in.zip"
    with zipfile.ZipFile(packed, "w") as opened:
        for name in (
            "../outside.ipynb",
            "/absolute.ipynb",
            "a/../../b.ipynb",
            "C:\\windows.ipynb",
            "..\\back.ipynb",
        ):
            opened.writestr(name, "{}")
        opened.writestr("Ada_12_assignsubmission_file_/good.ipynb", "{}")
        opened.writestr("__MACOSX/._good.ipynb", "{}")
    left_out = submissions.unpack(packed, tmp_path / "out")
    assert len(left_out) == 5
    assert all("outside the folder" in sentence for sentence in left_out)
    written = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert written == sorted([packed, tmp_path / "out/Ada_12_assignsubmission_file_/good.ipynb"])


def test_links_in_a_folder_are_not_followed(tmp_path):
    (tmp_path / "secret.ipynb").write_bytes(notebook(*course.ANSWERS))
    (tmp_path / "in" / "Eve").mkdir(parents=True)
    (tmp_path / "in" / "Eve" / "a.ipynb").symlink_to(tmp_path / "secret.ipynb")
    (one,) = submissions.find(tmp_path / "in")
    assert one.files == []


@pytest.mark.parametrize("name", NAMES)
def test_names_survive_from_a_zip_to_every_table_and_page(name, tmp_path):
    entry = f"{name.replace('/', ' ')}_4711_assignsubmission_file"
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as opened:
        opened.writestr(f"{entry}/a.ipynb", notebook("x = 1"))
    submissions.unpack(tmp_path / "in.zip", tmp_path / "in")
    (one,) = submissions.find(tmp_path / "in")
    assert (one.name, one.id, one.layout, one.entry) == (name, "4711", "moodle", entry)
    assert one.key.isascii()

    rubric = tiny_rubric()
    graded = result(rubric, one.name, one.id, one.layout, one.entry)
    by_hand.write([graded], tmp_path)
    report.write(rubric, [graded], tmp_path)
    for table in ("grades.csv", by_hand.POINTS):
        (row,) = list(csv.DictReader(io.StringIO((tmp_path / table).read_text("utf-8-sig"))))
        assert row["name"].lstrip("'") == name
        assert not row["name"].startswith("=")
    with zipfile.ZipFile(tmp_path / "feedback.zip") as opened:
        assert opened.namelist() == [f"{entry}/feedback.html"]
    page = (tmp_path / "feedback" / entry / "feedback.html").read_text("utf-8")
    assert "<script>" not in page
    assert "<b>x</b>" not in page
    side_by_side = (tmp_path / "written" / "2.2.html").read_text("utf-8")
    assert "alert(1)&lt;/script&gt;" in side_by_side
    assert "<script>alert" not in side_by_side


@pytest.mark.parametrize(
    ("file", "layout", "name", "id", "goes_back"),
    [
        (
            "Ada L_17_assignsubmission_file_work.ipynb",
            "moodle",
            "Ada L",
            "17",
            "Ada L_17_assignsubmission_file/",
        ),
        (
            "Participant_17_assignsubmission_file_/a.ipynb",
            "moodle",
            "Participant",
            "17",
            "Participant_17_assignsubmission_file_/",
        ),
        ("lovelaceada_123_4567_my_work_2.ipynb", "canvas", "lovelaceada", "123", "lovelaceada_123_4567_"),
        ("lovelaceada_LATE_123_4567_a.ipynb", "canvas", "lovelaceada", "123", "lovelaceada_LATE_123_4567_"),
        ("anon_x7Kq2_4567_a.ipynb", "canvas", "anon", "x7Kq2", "anon_x7Kq2_4567_"),
        ("Ada L/a.ipynb", "flat", "Ada L", "", "Ada L/"),
        ("Ada L.ipynb", "flat", "Ada L", "", "Ada L/"),
    ],
)
def test_a_layout_is_read_and_feedback_is_named_as_the_platform_wants_it(
    file, layout, name, id, goes_back, tmp_path
):
    for place in (file, "grades.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / place).write_bytes(notebook("x = 1"))
    (one,) = submissions.find(tmp_path)
    assert (one.layout, one.name, one.id) == (layout, name, id)
    assert (
        str(report._place(result(tiny_rubric(), name, id, layout, one.entry))) == f"{goes_back}feedback.html"
    )


def test_answers_typed_into_moodle_lie_beside_the_file(tmp_path):
    for kind in ("file", "onlinetext"):
        place = tmp_path / f"Ada_17_assignsubmission_{kind}_"
        place.mkdir()
        (place / ("a.ipynb" if kind == "file" else "onlinetext.html")).write_bytes(notebook("x = 1"))
    (one,) = submissions.find(tmp_path)
    assert {path.name for path in one.files} == {"a.ipynb", "onlinetext.html"}


MOODLE = {
    "english": ("﻿Identifier,Full name,Email address,Status,Grade,Maximum Grade,Grade can be changed,Last modified (submission),Feedback comments\r\n"
                'Participant 17,"Müller, Zoë",z@x.org,Submitted,,50.00,Yes,"Monday, 1 June",\r\n'
                "Participant 18,Ada,a@x.org,No submission,,50.00,Yes,-,\r\n"),
    "german": ("﻿ID;Vollständiger Name;Status;Bewertung;Bestwertung;Bewertung kann geändert werden;Feedback als Kommentar\n"
               'Teilnehmer/in 17;"Müller; Zoë";Abgegeben;;"50,00";Ja;\n'
               'Teilnehmer/in 18;Ada;Nichts;3,00;"50,00";Ja;\n'),
}  # fmt: skip


@pytest.mark.parametrize("language", MOODLE)
def test_moodles_worksheet_is_filled_in_whatever_its_language(language, tmp_path):
    rubric = tiny_rubric()
    graded = result(rubric, "Müller, Zoë", "17", "moodle", "Müller, Zoë_17_assignsubmission_file", earned=4.5)
    table = tmp_path / "Grades.csv"
    table.write_bytes(MOODLE[language].encode())
    assert worksheet.fill(table, rubric, [graded], tmp_path)[1] == 0  # the written answer is not read yet
    graded.marks[1].earned = 3.0
    target, filled = worksheet.fill(table, rubric, [graded], tmp_path)
    assert filled == 1
    points = {"english": "37.50", "german": '"37,50"' if language == "english" else "37,50"}[language]
    before, after = MOODLE[language].encode(), target.read_bytes()
    separator = b"," if language == "english" else b";"
    was = {"english": b"Submitted,,50.00", "german": b"Abgegeben;;50,00"}[language]
    now = was.replace(2 * separator, separator + points.encode() + separator)
    assert after.replace(b'"', b"") == before.replace(b'"', b"").replace(was, now)


def test_canvass_gradebook_is_filled_in(tmp_path):
    rubric = tiny_rubric()
    graded = result(rubric, "lovelaceada", "123", "canvas", "lovelaceada_123_9_", earned=6.0)
    graded.marks[1].earned = 2.0
    table = tmp_path / "book.csv"
    head = "Student,ID,SIS User ID,Section,Quiz (11),Assignment 2 (12),Current Score\n"
    table.write_text(
        head
        + "    Points Possible,,,,5,20,(read only)\n"
        + '"Lovelace, Ada",123,s1,A,4,,80\n"B, C",124,s2,A,4,,70\n'
    )
    with pytest.raises(worksheet.Unclear, match="2 columns could be meant"):
        worksheet.fill(table, rubric, [graded], tmp_path)
    target, filled = worksheet.fill(table, rubric, [graded], tmp_path, "Assignment 2")
    assert filled == 1
    rows = list(csv.reader(io.StringIO(target.read_text("utf-8"))))
    assert [row[5] for row in rows] == ["Assignment 2 (12)", "20", "16.00", ""]


def test_the_rubrics_own_fault_costs_nobody_points():
    def broken(probe):
        raise ZeroDivisionError("in the rubric")

    rubric = Rubric(2, "A title")
    rubric.question("2.1", "Code", 6, "planar")(broken)
    graded = grading.judge(
        grading.Record("k", "k", "k", "", "flat"), rubric, lambda request: {"missing": "x"}
    )
    assert graded.marks[0].earned is None
    assert "The rubric's own check of question 2.1 failed" in graded.person[0]
