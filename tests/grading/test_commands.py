"""The commands as people give them: the instructor's page from zip to worksheet, regrade, similar."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import zipfile
from pathlib import Path

from tests.grading import course
from tests.grading.batch import notebook
from tests.grading.conftest import ROOT
from tests.grading.test_platforms import MOODLE
from tools.grade import by_hand, grading, similar
from tools.grade.__main__ import arguments, main

CHANGED = """
from tools.grade.judging import near
from tools.grade.rubric import Rubric
rubric = Rubric(2, "Changed")
@rubric.question("2.3", "The average", POINTS, "average")
def average(probe):
    probe.check(POINTS, "three numbers", lambda: near(probe.ask("average", INPUT), 2))
"""


def test_regrade_scores_what_is_stored_and_runs_nobody(box, capsys, tmp_path):
    assignments, out = course.write(tmp_path / "course"), tmp_path / "out"

    def rubric(points: int, values: str) -> None:
        text = CHANGED.replace("POINTS", str(points)).replace("INPUT", values)
        (assignments / "2_rubric.py").write_text(text)

    def run(*words: str) -> str:
        assert main([*words, "--out", str(out), "--assignments", str(assignments)]) == 0
        return capsys.readouterr().out

    def total() -> str:
        return next(csv.DictReader(io.StringIO((out / "grades.csv").read_text("utf-8-sig"))))["total"]

    (tmp_path / "in" / "Ada").mkdir(parents=True)
    cells = notebook(course.START.format(student=5), *course.ANSWERS)
    (tmp_path / "in" / "Ada" / "a.ipynb").write_bytes(cells)
    rubric(6, "[1.0, 2.0, 3.0]")
    run("2", str(tmp_path / "in"))
    assert total() == "6"
    (record,) = (out / "records").glob("*.json")
    stored = json.loads(record.read_text())
    assert stored["replies"]
    rubric(8, "[1.0, 2.0, 3.0]")
    run("regrade", "2")
    assert total() == "8"
    rubric(8, "[0.0, 2.0, 4.0]")
    assert "not asked when it ran" in run("regrade", "2")
    assert json.loads(record.read_text()) == stored
    assert "  kept  " not in run("2", str(tmp_path / "in"))  # new questions need a new run
    assert total() == "8"


def commands_of_the_page() -> list[list[str]]:
    """The words after ``tools.grade`` of each command that the instructor's page tells."""
    text = (ROOT / "book" / "instructors_grading.md").read_text("utf-8")
    return [shlex.split(words) for words in re.findall(r"python -m tools\.grade ([^\n`]*)", text)]


def test_the_pages_commands_are_understood():
    assert len(commands_of_the_page()) >= 4
    for words in commands_of_the_page():
        assert arguments(words).number == 2


def test_a_moodle_zip_becomes_a_filled_worksheet_and_feedback_by_the_pages_commands(
    box, tmp_path, monkeypatch
):
    assignments = str(course.write(tmp_path / "course"))
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("moodle.zip", "w") as opened:
        for name, id, data in [
            ("Müller, Zoë", 17, notebook(course.START.format(student=5), *course.ANSWERS)),
            ("Ada", 18, b"no notebook"),
        ]:
            opened.writestr(f"{name}_{id}_assignsubmission_file/a.ipynb", data)
    Path("Grades.csv").write_bytes(MOODLE["english"].encode())
    grade, fill_in, *_ = commands_of_the_page()
    assert main([*grade, "--assignments", assignments]) == 0
    # what people do between the two commands
    table = Path("graded") / by_hand.POINTS
    table.write_text(table.read_text("utf-8-sig").replace("2.4,,8", "2.4,7.5,8"), "utf-8")
    table = Path("graded") / by_hand.PERSON
    table.write_text(table.read_text("utf-8-sig").rstrip() + "yes\n", "utf-8")
    assert main([*fill_in, "--assignments", assignments]) == 0
    rows = list(csv.DictReader(io.StringIO(Path("graded/filled_Grades.csv").read_text("utf-8-sig"))))
    # 22 and 7.5 of 30 points, of 50 on the platform
    assert [row["Grade"] for row in rows] == ["49.17", "12.50"]
    with zipfile.ZipFile("graded/feedback.zip") as opened:
        folders = ["Ada_18_assignsubmission_file", "Müller, Zoë_17_assignsubmission_file"]
        assert sorted(opened.namelist()) == [f"{folder}/feedback.html" for folder in folders]
        assert "29.5 of 30 points" in opened.read(f"{folders[1]}/feedback.html").decode()


def test_similar_hands_everybodys_code_and_what_was_given_to_compare50(capfd, monkeypatch, tmp_path):
    assignments, out = course.write(tmp_path / "course"), tmp_path / "out"
    for name in ("Ada", "Bob"):
        grading.Record(name, name, name, "", "flat", code=["import math", f"by = '{name}'"]).save(
            out / "records"
        )
    monkeypatch.setattr(similar, "OWN", tmp_path / "bin" / "compare50")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    words = ["similar", "2", "--out", str(out), "--assignments", str(assignments)]
    assert main(words) == 2
    assert "pip install compare50" in capfd.readouterr().err
    (tmp_path / "bin").mkdir()
    similar.OWN.write_text(
        '#!/bin/sh\necho "$PATH"\nfor one; do test -f "$one" && cat "$one"; done\necho "$@"\n'
    )
    similar.OWN.chmod(0o755)
    main(words)
    said = capfd.readouterr().out
    assert said.startswith(f"{tmp_path / 'bin'}:")  # where its own Python is
    assert ["by = 'Ada'" in said, "by = 'Bob'" in said, "STUDENT = 0" in said] == 3 * [True]
    assert said.split("-d ")[1].split() == [str(out / "code/.given/given.py"), "-o", str(out / "similar")]
