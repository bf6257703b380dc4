"""Student numbers: what a notebook drew its constants from, and the numbers that a person must look at."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from tools.grade import released
from tools.grade.records import Record, Result
from tools.grade.rubric import Probe, Reply, Rubric, Wrong

WITH_ZERO = re.compile(r"^STUDENT *= *(0+[1-9]\d*)\b", re.M)
LOST = "The questions on the student's own constants were judged as if the number were 0."


def seed(reply_to: Callable[[dict[str, Any]], Reply]) -> int | str | None:
    """What stands under STUDENT, as it goes into the notebook's own draw: "0123" is not 123 there."""
    try:
        value = Probe(reply_to).value("STUDENT")
    except Wrong:
        return None
    if isinstance(value, str):
        return value
    if not isinstance(value, torch.Tensor) or value.shape != () or value.dtype == torch.bool:
        return None
    number = value.item()
    return number if isinstance(number, int) else str(number)


def number(student: int | str | None) -> int | str | None:
    """The same for everybody who means the same number: digits as a number, other text without blanks."""
    if isinstance(student, str):
        return int(student) if re.fullmatch(r"\s*\d{1,20}\s*", student) else student.strip()
    return student


def note_numbers(results: list[Result], rubric: Rubric) -> None:
    """Send to a person: no number, one that is none, and one that two students gave."""
    if not released.given(rubric.edition).asks_number:
        return
    same = defaultdict(list)
    for result in results:
        if result.record.problem:
            continue
        if sentence := _trouble(result.record, result.student):
            result.person.append(sentence)
        if number(result.student):
            same[number(result.student)].append(result)
    for given, group in same.items():
        for result in group:
            names = ", ".join(other.record.name for other in group if other is not result)
            if names:
                result.person.append(f"The student number {str(given)[:40]} is also given by {names}.")


def _trouble(record: Record, student: int | str | None) -> str:
    """What is wrong with a number, in a sentence or two."""
    if student is None:
        if match := WITH_ZERO.search("\n".join(record.code)):
            return (
                f"The student number begins with 0, and Python does not read STUDENT = {match[1]}: the cell "
                f"failed, and with it what needs its constants. Without the 0 in front it runs. {LOST}"
            )
        return f"There is no student number: STUDENT is missing, or is neither a number nor text. {LOST}"
    means = number(student)
    if means == 0:
        return "The student number is 0, as it was given out, so the constants are nobody's own."
    if isinstance(means, int) and means > 0:
        return ""
    return (
        f"The student number is “{str(means)[:40]}”, and digits only were asked for. The constants were "
        "drawn from it as it stands, here as in the notebook; see whose number it is."
    )
