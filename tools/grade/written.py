"""The answers in words: what a student wrote between a question's heading and the next question's.

Only a heading that was given out ends an answer, for students structure theirs with headings of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tools.grade import released
from tools.grade.notebooks import PLACE
from tools.grade.rubric import Rubric

HEADING = re.compile(r"^ {0,3}#{1,6} +(?P<text>.*?)[ #]*$")
ANSWER = re.compile(r"^Answer (?P<id>\d+\.\d+)\b[.:]?(?P<rest>.*)$")
POINTS = re.compile(r" \((?:written, )?[\d.]+ points\)$")
LAST = "Before you hand in"


def answers(cells: Iterable[str], rubric: Rubric) -> dict[str, str]:
    """The text of each written answer; an empty one where the student added nothing to what was given."""
    cells = list(cells)
    found = _collect(cells, rubric)
    for id in [id for id, text in found.items() if not text]:
        found[id] = _collect(cells, rubric, typed_over=id)[id]
    return found


def _collect(cells: list[str], rubric: Rubric, typed_over: str = "") -> dict[str, str]:
    """Every answer's lines; with an id, also below a heading that has only this number in common."""
    given = released.given(rubric.edition)
    given_cells = [_lines(cell) for cell in given.words]
    # a line of $$ may be the student's as well as the question's
    given_lines = {line for lines in given_cells for line in lines if len(line) > 20}
    ends = {LAST, *_headings(given_cells)}
    titles = {f"{question.id} {question.title}": question.id for question in rubric.questions}
    own = re.compile(rf"(?:Question |Answer )?{re.escape(typed_over)}(?![.\d]*\d)")
    found: dict[str, list[str]] = {question.id: [] for question in rubric.questions if not question.judge}
    current, in_answer = "", False
    for cell in cells:
        lines = _lines(cell)
        given_in_front = max((len(one) for one in given_cells if lines[: len(one)] == one), default=0)
        for number, line in enumerate(lines):
            heading = HEADING.match(line)
            text = heading["text"] if heading else ""
            answer, title = ANSWER.match(text), POINTS.sub("", text)
            if answer and answer["id"] in found:
                current, in_answer, line = answer["id"], True, answer["rest"].strip()
            elif title in titles:
                current, in_answer = titles[title], False
                continue
            elif heading and text in ends:
                current = ""
            elif heading and typed_over and own.match(text):
                current, in_answer = typed_over, True
            is_given = line.strip() == PLACE or (not in_answer and line in given_lines)
            if current in found and number >= given_in_front and not is_given:
                found[current].append(line)
    return {id: "\n".join(lines).strip() for id, lines in found.items()}


def _headings(cells: Iterable[list[str]]) -> Iterator[str]:
    for line in (line for lines in cells for line in lines):
        if match := HEADING.match(line):
            yield match["text"]


def _lines(cell: str) -> list[str]:
    """Without the blanks that editors add at the ends of lines and cells."""
    return [line.rstrip() for line in cell.strip().splitlines()]
