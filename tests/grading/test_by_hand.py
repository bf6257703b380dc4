"""What people type into the two tables counts for what they read, and never vanishes."""

from __future__ import annotations

import pytest

from tests.grading.test_platforms import result, tiny_rubric
from tools.grade import by_hand, grading, report, tables
from tools.grade.records import Record, Result
from tools.grade.rubric import Rubric


def test_points_by_hand_stay_replace_and_are_checked(tmp_path):
    rubric = tiny_rubric()

    def fresh():
        return [result(rubric, "Ada", "1", "flat", "Ada"), result(rubric, "Bob", "2", "flat", "Bob")]

    first = fresh()
    by_hand.write(first, tmp_path)
    table = tmp_path / by_hand.POINTS
    ada, bob = (one.record.key for one in first)
    # as a German spreadsheet saves it, with a point for a coded question as well
    table.write_bytes(
        f"key;name;question;points;of;comment\n{ada};Ada;2.2;3,5;4;schön\n{ada};Ada;2.1;6;6;seen\n{bob};Bob;2.2;9;4;\n".encode(
            "cp1252"
        )
    )
    second = fresh()
    complaints = by_hand.apply(second, tmp_path)
    assert [mark.earned for mark in second[0].marks] == [6.0, 3.5]
    assert second[0].complete
    assert second[0].marks[1].comment == "schön"
    assert second[1].marks[1].earned is None
    assert len(complaints) == 1
    assert "Bob, question 2.2: “9” is no number from 0 to 4" in complaints[0]
    by_hand.write(second, tmp_path)
    assert {row["points"] for row in tables.read(table)} == {"3,5", "6", "9"}


def test_what_a_person_settled_stays_settled(tmp_path):
    rubric = tiny_rubric()
    for _ in range(3):
        one = result(rubric, "Ada", "1", "flat", "Ada")
        one.marks[1].earned = 1.0
        one.person.append("Something to look at.")
        by_hand.apply([one], tmp_path)
        assert one.complete == (tmp_path / by_hand.PERSON).exists()
        by_hand.write([one], tmp_path)
        table = tmp_path / by_hand.PERSON
        table.write_text(table.read_text("utf-8-sig").rstrip().removesuffix("yes") + "yes\n", "utf-8")
    one.person.clear()
    for _ in range(2):
        by_hand.write([one], tmp_path)
        (row,) = tables.read(table)
        assert (row["why"], row["settled"]) == ("No longer: Something to look at.", "yes")


def test_a_settled_case_without_a_notebook_is_complete_and_its_page_says_why(tmp_path):
    rubric = tiny_rubric()
    record = Record("k", "Ada", "Ada", "1", "flat", problem="There is no notebook.")
    for settled in ("", "yes"):
        tables.save(tmp_path / by_hand.PERSON, ["key", "settled"], [["k", settled]])
        one = grading.judge(record, rubric, grading.from_record(record))
        by_hand.apply([one], tmp_path)
        page = report.page(rubric, one)
        assert one.complete == ("0 of 10 points<" in page) == bool(settled)
        assert ("A person looks at this" in page) != bool(settled)
        assert "There is no notebook." in page


def table_of(rubric: Rubric, tmp_path, *rows: str) -> tuple[Result, list[str]]:
    """One student's result when these rows stand in the table, and what was complained of."""
    header = "key,name,question,points,of,comment\n"
    (tmp_path / by_hand.POINTS).write_text(header + "\n".join(rows) + "\n", "utf-8")
    one = grading.judge(Record("k", "Ada", "Ada", "1", "flat"), rubric, lambda request: {"missing": "x"})
    complaints = by_hand.apply([one], tmp_path)
    by_hand.write([one], tmp_path)
    return one, complaints


def test_a_spreadsheet_does_not_move_points_to_another_question(tmp_path):
    rubric = Rubric(4, "A title")
    rubric.question("4.1", "Code", 8, "planar")(lambda probe: None)
    rubric.written("4.10", "Words", 10)
    rubric.written("4.11", "More", 10)

    def earned(one: Result) -> list[float | None]:
        return [mark.earned for mark in one.marks]

    one, complaints = table_of(rubric, tmp_path, "k,Ada,4.10,7,10,", "k,Ada,Q4.11,6,10,")
    assert (earned(one), complaints) == ([0, 7, 6], [])
    written = [row["question"] for row in tables.read(tmp_path / by_hand.POINTS)]
    assert written == ["Q4.10", "Q4.11"]  # nothing that a spreadsheet takes for a number
    for shortened, said in (
        (["k,Ada,4.1,7,10,"], "its row says “of 10”, but it has 8 points, so the row does not count"),
        (["k,Ada,4.1,5,8,", "k,Ada,4.1,7,10,"], "2 rows are for it, and none counts until one is left"),
    ):
        one, complaints = table_of(rubric, tmp_path, *shortened)
        assert earned(one) == [0, None, None]
        assert len(complaints) == 1
        assert said in complaints[0]
        assert "Ada, question 4.1:" in complaints[0]
        kept = [(row["question"], row["points"]) for row in tables.read(tmp_path / by_hand.POINTS)]
        assert {("4.1", "7"), ("Q4.10", "")} <= set(kept)


@pytest.mark.parametrize("word", ["Yes", "ja", "X", "1", "no", "0", "later"])
def test_only_a_yes_settles(word, tmp_path):
    settles = word in ("Yes", "ja", "X", "1")
    tables.save(tmp_path / by_hand.PERSON, ["key", "settled"], [["k", word]])
    record = Record("k", "Ada", "Ada", "1", "flat", problem="There is no notebook.")
    one = grading.judge(record, tiny_rubric(), grading.from_record(record))
    complaints = by_hand.apply([one], tmp_path)
    assert one.settled == one.complete == settles
    assert len(complaints) == (not settles)
    assert all(f"“{word}” under “settled” is neither empty nor yes" in said for said in complaints)
    by_hand.write([one], tmp_path)
    assert [row["settled"] for row in tables.read(tmp_path / by_hand.PERSON)] == [word]


def test_whatever_people_type_is_read_back(tmp_path):
    rubric = tiny_rubric()
    one = result(rubric, "Ada", "1", "flat", "Ada")
    key, table = one.record.key, tmp_path / by_hand.POINTS
    # a column of one's own, commas without quotes, a minus in front, and a line for nobody
    table.write_text(
        "key,question,points,grader,comment\n"
        f"{key},Q2.2,3,Eve,-1 for the sign, else good\nnobody-1,Q9.9,4,Eve,late\n"
    )
    for _ in range(3):
        one = result(rubric, "Ada", "1", "flat", "Ada")
        (complaint,) = by_hand.apply([one], tmp_path)
        assert "no student has the key “nobody-1” and a question 9.9; the row stays" in complaint
        assert (one.marks[1].earned, one.marks[1].comment) == (3.0, "-1 for the sign, else good")
        by_hand.write([one], tmp_path)
        typed = [(row["points"], row["grader"], row["comment"]) for row in tables.read(table)]
        assert typed == [("3", "Eve", "-1 for the sign, else good"), ("4", "Eve", "late")]
    table.write_text("a,b\n1,2\n")
    with pytest.raises(tables.Unreadable, match=r"has no column “key”.*put the header back"):
        by_hand.apply([one], tmp_path)
    assert table.read_text() == "a,b\n1,2\n"
