"""Fills in the table that the platform gave: Moodle's grading worksheet, Canvas's gradebook.

Moodle's headers are in the teacher's language, so its columns are known by what stands in them.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from tools.grade.records import Result
from tools.grade.rubric import Rubric


class Unclear(Exception):
    """The table does not say where the points go; the message says how to help."""


def fill(path: Path, rubric: Rubric, results: list[Result], out: Path, column: str = "") -> tuple[Path, int]:
    """Write the table with the points of all complete results; return where, and how many were filled in.

    Raises:
        Unclear: if it is neither platform's, or more than one column could be meant.
    """
    data = path.read_bytes()
    encoding = "utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise Unclear(
            f"{path.name} is not UTF-8; download it again and do not save it with a spreadsheet."
        ) from None
    separator = max(",;\t", key=text.split("\n", 1)[0].count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    if len(rows) < 2:
        raise Unclear(f"{path.name} has no rows below its header.")
    points = {
        result.record.id: result.total / rubric.points
        for result in results
        if result.complete and result.record.id
    }
    filled = (_canvas if "ID" in rows[0] and "Student" in rows[0] else _moodle)(path, rows, points, column)
    written = io.StringIO(newline="")
    end = "\r\n" if "\r\n" in text else "\n"
    csv.writer(written, delimiter=separator, lineterminator=end).writerows(rows)
    target = out / f"filled_{path.name}"
    target.write_bytes(written.getvalue().encode(encoding))
    return target, filled


def _moodle(path: Path, rows: list[list[str]], points: dict[str, float], column: str) -> int:
    header, body = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    grade = header.index(column) if column in header else _before_the_maximum(path, body)
    most = _number(body[0][grade + 1])
    comma = "," in body[0][grade + 1]
    filled = 0
    for row in body:
        if (digits := re.search(r"(\d+)\s*$", row[0])) and digits[1] in points:
            given = f"{points[digits[1]] * most:.2f}"
            row[grade] = given.replace(".", ",") if comma else given
            filled += 1
    return filled


def _before_the_maximum(path: Path, body: list[list[str]]) -> int:
    """Moodle's grade stands just before the maximum grade: the one number that is the same in every row."""
    fits = []
    for column in range(2, len(body[0]) if body else 0):
        values = {row[column] for row in body}
        before = [row[column - 1].strip() for row in body]
        if (
            len(values) == 1
            and _number(*values) > 0
            and all(not value or _number(value) >= 0 for value in before)
        ):
            fits.append(column - 1)
    if len(fits) != 1:
        raise Unclear(f"{path.name}: which column takes the points? Name its header: --column “…”.")
    return fits[0]


def _canvas(path: Path, rows: list[list[str]], points: dict[str, float], column: str) -> int:
    header = rows[0]
    fits = [
        i for i, name in enumerate(header) if (column in name if column else re.search(r"\(\d+\)$", name))
    ]
    if len(fits) != 1:
        raise Unclear(
            f"{path.name}: {len(fits)} columns could be meant. Give a part of its header: --column “…”."
        )
    grade, id = fits[0], header.index("ID")
    most = next((_number(row[grade]) for row in rows[1:4] if "Points Possible" in row[0]), 100.0)
    filled = 0
    for row in rows[1:]:
        if len(row) > max(grade, id) and row[id].strip() in points:
            row[grade] = f"{points[row[id].strip()] * most:.2f}"
            filled += 1
    return filled


def _number(text: str) -> float:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return -1.0
