"""What people add: points for written answers, points that replace a check's, and cases settled.

``grade`` writes both files, people fill them in with any spreadsheet, and what they typed stays: a row that
fits nobody is written back, and points for an answer that was handed in anew become a note.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tools.grade import tables
from tools.grade.records import Mark, Result

POINTS, PERSON = "points_by_hand.csv", "needs_a_person.csv"
# the comment and “settled” are last, for what people type beyond the last column is added to it
POINTS_HEADER = ["key", "name", "question", "points", "of", "version", "note", "comment"]
PERSON_HEADER = ["key", "name", "why", "version", "settled"]
YES = {"yes", "y", "ja", "x", "1", "true"}
ANEW = "handed in anew"
Row = dict[str, str]


def apply(results: list[Result], out: Path) -> list[str]:
    """Give the points that people gave, and note what they settled; return what could not be read.

    Raises:
        Unreadable: if a file has lost a column.
    """
    points, settled = _points(out), _settled(out)
    complaints = []
    for result in results:
        anew = []
        for mark in result.marks:
            rows = points.pop((result.record.key, mark.question.id), [])
            if complaint := _refused(rows, result, mark):
                complaints.append(f"{POINTS}: {result.record.name}, question {mark.question.id}: {complaint}")
            elif rows:
                row = _as_it_counts(rows[0], result.record.version_of(mark.question))
                mark.comment, mark.note = row["comment"].strip(), row["note"].strip()
                if row["points"].strip():
                    mark.earned = _number(row["points"])
                elif mark.question.judge and mark.note.startswith(ANEW):
                    anew.append(f"{mark.question.id} ({mark.note})")
        if anew:  # the check's points count again, where a person had found them wrong
            result.person.append(f"Points by hand were for what was there before: {', '.join(anew)}.")
        complaints += _settle(result, settled.get(result.record.key, {}))
    for (key, id), rows in points.items():
        if any(map(_is_typed, rows)):
            complaints.append(f"{POINTS}: no student has the key “{key}” and a question {id}; the row stays.")
    return complaints


def write(results: list[Result], out: Path) -> None:
    """Write both files anew with a line for all that is open, and keep what people wrote."""
    points, settled = _points(out), _settled(out)
    marks, cases = [], []
    for result in results:
        record = result.record
        for mark in result.marks:
            question = mark.question
            rows = points.pop((record.key, question.id), [])
            if _refused(rows, result, mark):
                marks += rows
                continue
            row = _as_it_counts(rows[0] if rows else {}, record.version_of(question))
            if not question.judge or record.problem or _is_typed(row):
                # a bare 4.10 is 4.1 to a spreadsheet
                asked = {"question": f"Q{question.id}", "of": f"{question.points:g}"}
                marks.append(row | {"key": record.key, "name": record.name} | asked)
        row = settled.pop(record.key, {"settled": ""})
        if result.person:
            why = {"why": " ".join(result.person), "version": record.version}
            if row.get("version", "") not in ("", record.version):
                row = row | {"settled": ""}
            cases.append(row | {"key": record.key, "name": record.name} | why)
        elif row["settled"].strip():
            cases.append(row | {"why": f"No longer: {row.get('why', '').removeprefix('No longer: ')}"})
    marks += [row for rows in points.values() for row in rows if _is_typed(row)]
    cases += [row for row in settled.values() if row["settled"].strip()]
    _save(out / POINTS, POINTS_HEADER, marks)
    _save(out / PERSON, PERSON_HEADER, cases)


def _refused(rows: list[Row], result: Result, mark: Mark) -> str:
    """Why the rows for a question do not count, in a sentence; empty if they do."""
    if not any(map(_is_typed, rows)):
        return ""
    most, counting = mark.question.points, "A spreadsheet turns a bare 4.10 into 4.1, but not Q4.10."
    if len(rows) > 1:
        return f"{len(rows)} rows are for it, and none counts until one is left. {counting}"
    row = _as_it_counts(rows[0], result.record.version_of(mark.question))
    given, of = row["points"].strip(), rows[0].get("of", "").strip()
    if of and rows[0]["points"].strip() and _number(of) != most:
        return (
            f"its row says “of {of}”, but it has {most:g} points, so the row does not count. If the row is "
            f"for this question, write {most:g} under “of”. {counting}"
        )
    if given and not 0 <= _number(given) <= most:
        return f"“{given}” is no number from 0 to {most:g}."
    return ""


def _as_it_counts(row: Row, version: str) -> Row:
    """A row for this version of the answer; what was typed for another one becomes a note."""
    row = dict.fromkeys(POINTS_HEADER, "") | row
    points, comment = row["points"].strip(), row["comment"].strip()
    if row["version"] not in ("", version) and (points or comment):
        said = f"{ANEW}, was {points or 'open'}" + (f" (“{comment}”)" if comment else "")
        note = "; ".join(filter(None, [said, row["note"].strip()]))
        row |= {"points": "", "comment": "", "note": note}
    return row | {"version": version}


def _settle(result: Result, row: Row) -> list[str]:
    """Settle a case that a person said is settled; return what is wrong with the word."""
    word = row.get("settled", "").strip()
    if not word or not result.person:
        return []
    if row.get("version", "") not in ("", result.record.version):
        result.person.append(f"It was settled (“{word}”) before it was {ANEW}.")
        return []
    if word.casefold() not in YES:
        return [
            f"{PERSON}: {result.record.name}: “{word}” under “settled” is neither empty nor yes "
            f"(or one of y, ja, x, 1, true), so the case stays open."
        ]
    result.settled = True
    for mark in result.marks:
        if mark.earned is None and (mark.question.judge or result.record.problem):
            mark.earned = 0.0
    return []


def _points(out: Path) -> dict[tuple[str, str], list[Row]]:
    """The rows for each key and question, which may be written Q4.10 or 4.10."""
    rows = defaultdict(list)
    for row in tables.read(out / POINTS, "key", "question", "points"):
        rows[row["key"].strip(), row["question"].strip().removeprefix("Q").removeprefix("q")].append(row)
    return rows


def _settled(out: Path) -> dict[str, Row]:
    """The row of each key; if there are two, with the words of both."""
    found: dict[str, Row] = {}
    for row in tables.read(out / PERSON, "key", "settled"):
        key = row["key"].strip()
        words = [one["settled"].strip() for one in (found.get(key, {"settled": ""}), row)]
        found[key] = row | {"settled": " / ".join(dict.fromkeys(filter(None, words)))}
    return found


def _is_typed(row: Row) -> bool:
    return any(row.get(name, "").strip() for name in ("points", "comment", "note"))


def _number(text: str) -> float:
    """The number, with a point or a comma; less than 0 if it is none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return -1.0


def _save(path: Path, header: list[str], rows: list[Row]) -> None:
    """Write the rows with every column that people added, and keep the file that was there."""
    own = {name: None for row in rows for name in row if name not in header}
    columns = [*header[:-1], *own, header[-1]]
    tables.save(path, columns, [[row.get(name, "") for name in columns] for row in rows], keep=True)
