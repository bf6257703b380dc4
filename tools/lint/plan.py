"""Rules about the plan of a lecture: its parts, length, figures and exercises."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbformat import NotebookNode

from tools.formulas import called, first_text, statements
from tools.lint.lecture import FOLD, Lecture

# The contract of a lecture: pairs are (least, most).
WORDS = (900, 2600)
OBJECTIVES = (3, 6)
CODED_EXERCISES_AT_LEAST = 2
ALT_TEXT_AT_LEAST = 40
BYTES_AT_MOST = 1_500_000

# formulas, code and the targets of links
NO_WORDS = re.compile(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`]*`|\]\([^)]*\)", re.DOTALL)
SOLUTION_FOLD = re.compile(r"<summary>\s*Solution (\d+\.\d+)")
SOLUTION_CELL = re.compile(r"# @title Solution (\d+\.\d+)\b")


def planned(lecture: Lecture) -> Iterator[str]:
    """Title with needs, time, device, slides and objectives; Exercises, Recap, References last."""
    title = lecture.cells[0].source if lecture.cells else ""
    if not re.match(rf"# {lecture.number}\. \S", title):
        yield f"The first cell must open with the title “# {lecture.number}. …”."
    for word, pattern in {
        "what the reader needs": r"you need",
        "the time": r"\d+ (minutes|min\b)",
        "CPU or GPU": r"\b[CG]PU\b",
        "the slides it covers": r"\bslides?\b",
    }.items():
        if not re.search(pattern, title, re.IGNORECASE):
            yield f"The title cell does not say {word}."
    objectives = len(re.findall(r"^(?:\d+\.|[-*]) +\S", title, re.MULTILINE))
    if not OBJECTIVES[0] <= objectives <= OBJECTIVES[1]:
        yield f"The title cell lists {objectives} objectives; {OBJECTIVES[0]} to {OBJECTIVES[1]} are right."
    sections = re.findall(r"^## +(.+?) *$", lecture.text, re.MULTILINE)
    if sections[-3:] != ["Exercises", "Recap", "References"]:
        last = ", ".join(sections[-3:])
        yield f"The last sections must be Exercises, Recap and References; they are {last}."


def right_length(lecture: Lecture) -> Iterator[str]:
    """The lecture fits one sitting; formulas, code and folded solutions do not count as words."""
    text = NO_WORDS.sub(" ", FOLD.sub("", lecture.text))
    words = len(re.findall(r"[^\W\d_]{2,}", text))
    if not WORDS[0] <= words <= WORDS[1]:
        yield f"The lecture has {words} words; it should have between {WORDS[0]} and {WORDS[1]}."


def small(lecture: Lecture) -> Iterator[str]:
    """The file stays small enough for GitHub to show and a phone to load."""
    size = lecture.path.stat().st_size
    if size > BYTES_AT_MOST:
        yield f"The notebook has {size:,} bytes; at most {BYTES_AT_MOST:,}. Draw fewer points."


def figures_described(lecture: Lecture) -> Iterator[str]:
    """Every cell that draws has alt text that tells what the picture shows."""
    for place, cell in lecture.code:
        draws = any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if draws and len(alt) < ALT_TEXT_AT_LEAST:
            yield f"{place} draws a figure whose alt text is “{alt}”, under {ALT_TEXT_AT_LEAST} letters."


def exercises_solved(lecture: Lecture) -> Iterator[str]:
    """Enough exercises with time and difficulty, every one solved, every coded solution executed."""
    folded = set(SOLUTION_FOLD.findall(lecture.text))
    stubs: dict[str, str] = {}
    solved: dict[str, str] = {}
    for place, cell in lecture.code:
        title = SOLUTION_CELL.match(cell.source)
        name = _exercise(cell)
        if title and name != title[1]:
            yield f"{place} must end in check.exercise(“{title[1]}”, …), as its stub does."
        elif title:
            solved[name] = "".join(output.get("text", "") for output in cell.outputs)
        elif name:
            stubs[name] = "".join(output.get("text", "") for output in cell.outputs)
    for name, rest in lecture.exercises.items():
        if not re.search(r"\d+ min", rest) or not re.search(r"\b(easy|medium|hard)\b", rest):
            yield f"Exercise {name} must state its minutes and easy, medium or hard in its first line."
        if name not in folded | set(solved):
            yield f"Exercise {name} has no solution."
    for name in sorted(folded | set(stubs) | set(solved)):
        if name not in lecture.exercises:
            yield f"There is a stub or solution {name}, but no exercise “**{name}** (…)” under ## Exercises."
    for name in stubs:
        if f"… exercise {name}: not answered yet" not in stubs[name]:
            yield f"The stub of exercise {name} must run unanswered: answer = None  # your code."
        if f"✓ exercise {name}: correct" not in solved.get(name, ""):
            yield f"The coded exercise {name} has no solution cell that printed “correct”."
    if len(stubs) < CODED_EXERCISES_AT_LEAST:
        yield f"There are {len(stubs)} coded exercises; at least {CODED_EXERCISES_AT_LEAST} are needed."


def _exercise(cell: NotebookNode) -> str | None:
    """The number in ``check.exercise("6.3", …)`` if the cell's last statement is that call."""
    body = statements(cell.source)
    call = getattr(body[-1], "value", None) if body else None
    return first_text(call) if call is not None and called(call) == "exercise" else None
