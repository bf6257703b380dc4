"""What people add: points for written answers, points that replace a check's, and cases settled.

``grade`` writes both files, people fill them in with any spreadsheet, and what stands in them stays.
"""

from __future__ import annotations

import csv
from pathlib import Path

from tools.grade.grading import Result

POINTS, PERSON = "points_by_hand.csv", "needs_a_person.csv"


def apply(results: list[Result], out: Path) -> list[str]:
    """Give the points that people gave, and note what they settled; return what could not be read."""
    complaints = []
    points = {(row["key"], row["question"]): row for row in read(out / POINTS)}
    settled = {row["key"] for row in read(out / PERSON) if row["settled"].strip()}
    for result in results:
        key = result.record.key
        for mark in result.marks:
            row = points.pop((key, mark.question.id), None)
            if row is None:
                continue
            mark.comment = row["comment"].strip()
            if not row["points"].strip():
                continue
            try:
                given = float(row["points"].replace(",", "."))
            except ValueError:
                given = -1.0
            if 0 <= given <= mark.question.points:
                mark.earned = given
            else:
                complaints.append(
                    f"{POINTS}: {row['name']}, question {mark.question.id}: “{row['points']}” is no number "
                    f"from 0 to {mark.question.points:g}."
                )
        if key in settled:
            result.settled = True
            for mark in result.marks:
                if mark.earned is None and (mark.question.judge or result.record.problem):
                    mark.earned = 0.0
    complaints += [f"{POINTS}: no student has the key “{key}” and a question {id}." for key, id in points]
    return complaints


def write(results: list[Result], out: Path) -> None:
    """Write both files anew with a line for all that is open, and keep what people wrote."""
    old = {(row["key"], row["question"]): row for row in read(out / POINTS)}
    rows = []
    for result in results:
        for mark in result.marks:
            kept = old.get((result.record.key, mark.question.id))
            if mark.question.judge and not kept and not result.record.problem:
                continue
            kept = kept or {"points": "", "comment": ""}
            row = [result.record.key, result.record.name, mark.question.id, kept["points"]]
            rows.append([*row, f"{mark.question.points:g}", kept["comment"]])
    save(out / POINTS, ["key", "name", "question", "points", "of", "comment"], rows)
    settled = {row["key"]: row["settled"] for row in read(out / PERSON)}
    open_cases = [
        [result.record.key, result.record.name, " ".join(result.person), settled.get(result.record.key, "")]
        for result in results
        if result.person
    ]
    save(out / PERSON, ["key", "name", "why", "settled"], open_cases)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a file that people may have saved with semicolons, or in Windows's encoding."""
    if not path.exists():
        return []
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    return [
        {k: v or "" for k, v in row.items() if k}
        for row in csv.DictReader(text.splitlines(True), delimiter=separator)
    ]


def save(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Write a table that spreadsheets open with the right letters."""
    with path.open("w", encoding="utf-8-sig", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(header)
        writer.writerows([_harmless(value) for value in row] for row in rows)


def _harmless(value: str) -> str:
    """A name that a spreadsheet would run as a formula gets an apostrophe before it."""
    return f"'{value}" if str(value)[:1] in ("=", "+", "-", "@", "\t", "\r") else value
