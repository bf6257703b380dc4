"""What comes out: grades.csv, a feedback page for each student, a page for each written question."""

from __future__ import annotations

import html
import re
import shutil
import zipfile
from pathlib import Path

from tools.grade import students
from tools.grade.records import Mark, Result
from tools.grade.rubric import Rubric
from tools.grade.tables import save

MATHJAX = Path(__file__).parents[2] / "book" / "_static" / "mathjax"
FEEDBACK = "feedback.html"

BASE64 = r"data:image/(png|jpe?g);base64,([A-Za-z0-9+/=]+)"
PICTURE = re.compile(
    rf"!\[[^\[\]\n]*\]\(<?{BASE64}>?(?: [^()\n]*)?\)|<img\b[^<>]*?\bsrc *= *[\"']?{BASE64}[^<>]*>", re.I
)
OTHER_DATA = re.compile(r"(data:[\w/+.-]+;base64,)[A-Za-z0-9+/=]{100,}")  # megabytes that say nothing

STYLE = """
:root { color-scheme: light dark }
body { font: 17px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem }
.total { font-size: 1.25rem; font-weight: 600 }
ul { list-style: none; padding: 0 } li { margin: .35rem 0 }
.mark { display: inline-block; min-width: 4.6rem; font-variant-numeric: tabular-nums; font-weight: 600 }
.why { display: block; margin-left: 4.6rem }
.person { border-left: .3rem solid #d55e00; padding-left: .8rem }
.answer img { max-width: 100% }
.answer { white-space: pre-wrap; overflow-wrap: anywhere; overflow-x: auto }
code { font: .92em ui-monospace, monospace; overflow-wrap: anywhere }
article { border-top: 1px solid #8888; padding: .5rem 0 1rem }
.columns { display: grid; gap: 0 2rem }
.columns { grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)) }
"""

# the plain set of macros: no \\href, no \\require, nothing that a student's text could load or run
TYPESETTING = """
<script>MathJax = {tex: {inlineMath: [["$", "$"]], packages: ["base", "ams", "newcommand"]}}</script>
<style>body { max-width: none }</style>
<script defer src="mathjax/tex-chtml-full.js"></script>
"""


def write(rubric: Rubric, results: list[Result], out: Path) -> None:
    """Write everything that people and platforms read, from the results alone."""
    _grades(rubric, results, out)
    for folder in ("feedback", "written"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    for result in results:
        place = out / "feedback" / _place(result)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(page(rubric, result), "utf-8")
    with zipfile.ZipFile(out / "feedback.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((out / "feedback").rglob("*.html")):
            packed.write(path, path.relative_to(out / "feedback").as_posix())
    questions = [question for question in rubric.questions if question.judge is None]
    if questions and MATHJAX.is_dir():
        shutil.copytree(MATHJAX, out / "written" / "mathjax")
    for question in questions:
        (out / "written" / f"{question.id}.html").write_text(answers(rubric, question.id, results), "utf-8")


def page(rubric: Rubric, result: Result) -> str:
    """One student's feedback; whatever came from the student is escaped."""
    record = result.record
    parts = [
        f"<h1>Assignment {rubric.number}: {_text(rubric.title)}</h1>",
        f'<p dir="auto">{_text(record.name)}</p>',
    ]
    waiting = sum(mark.earned is None for mark in result.marks)
    so_far = " so far" if waiting else ""
    parts.append(f'<p class="total">{result.total:g} of {rubric.points:g} points{so_far}</p>')
    if result.person and not result.settled:
        parts.append('<div class="person"><p>A person looks at this before it counts:</p>')
        parts += [f"<p>{_text(sentence)}</p>" for sentence in result.person]
        parts.append("</div>")
    elif record.problem:
        parts.append(f"<p>{_text(record.problem)}</p>")
    if record.file:
        parts.append(
            f"<p>Graded: <code>{_text(record.file)}</code>, run from top to bottom in a new session.</p>"
        )
    if record.troubles:
        parts.append("<h2>While it ran</h2><ul>")
        for cell, sentence in record.troubles.items():
            first = next(iter(record.code[int(cell)].strip().splitlines()), "")
            parts.append(
                f"<li>Code cell {int(cell) + 1} (<code>{_text(first[:60])}</code>): {_text(sentence)}.</li>"
            )
        parts.append("</ul>")
    if result.settled or not record.problem:
        parts += [_question(mark) for mark in result.marks]
    return _html(f"Assignment {rubric.number}", "\n".join(parts))


def answers(rubric: Rubric, id: str, results: list[Result]) -> str:
    """All answers to one written question side by side, for whoever reads them."""
    question = next(question for question in rubric.questions if question.id == id)
    parts = [f"<h1>{id} {_text(question.title)} ({question.points:g} points)</h1>"]
    parts.append("<p>Points and comments go into <code>points_by_hand.csv</code>, by the key.</p>")
    parts.append('<div class="columns">')
    for result in results:
        record = result.record
        parts.append(f'<article><h2 dir="auto">{_text(record.name)}</h2><p><code>{record.key}</code></p>')
        notebook = f"In <code>{_text(record.file)}</code>" if record.file else _text(record.problem)
        parts.append(f"<p>{notebook}</p>")
        note = next((mark.note for mark in result.marks if mark.question.id == id), "")
        parts.append(f'<p class="person">{_text(note)}</p>' if note else "")
        if record.file:
            answer = record.written.get(id) or "(nothing was written for this question)"
            parts.append(f'<div class="answer" dir="auto">{_with_pictures(answer)}</div>')
        parts += [f"<p>Handed in beside it: <code>{_text(name)}</code></p>" for name in record.attachments]
        parts.append("</article>")
    return _html(f"Question {id}", "\n".join([*parts, "</div>"]), TYPESETTING)


def line(result: Result, rubric: Rubric) -> str:
    """What the terminal says of one student."""
    possible = sum(question.points for question in rubric.questions if question.judge)
    if result.record.problem:
        return f"needs a person: {result.record.problem}"
    said = f"{result.total:g}/{possible:g}"
    if count := len(result.record.troubles):
        said += f", {count} {'cell' if count == 1 else 'cells'} with trouble"
    return f"{said}, needs a person: {' '.join(result.person)}" if result.person else said


def _question(mark: Mark) -> str:
    question = mark.question
    parts = [f"<h2>{question.id} {_text(question.title)}</h2>"]
    if mark.earned is None:
        parts.append(f"<p>Worth {question.points:g} points. A person reads this answer.</p>")
    else:
        parts.append(f'<p><span class="mark">{mark.earned:g} of {question.points:g}</span></p>')
    checks = []
    for check in mark.checks:
        sign = "✓" if check.earned else "✗"
        why = f'<span class="why">{_text(check.why)}</span>' if check.why else ""
        points = f'<span class="mark">{sign} {check.earned:g}/{check.points:g}</span>'
        checks.append(f"<li>{points} {_text(check.says)}{why}</li>")
    parts.append(f"<ul>{''.join(checks)}</ul>" if checks else "")
    parts.append(f"<p>{_text(mark.comment)}</p>" if mark.comment else "")
    return "\n".join(parts)


def _grades(rubric: Rubric, results: list[Result], out: Path) -> None:
    ids = [f"Q{question.id}" for question in rubric.questions]  # a spreadsheet makes 4.1 of 4.10
    header = ["key", "name", "id", "student", *ids, "total", "of", "state"]
    rows = []
    for result in results:
        record = result.record
        points = ["" if mark.earned is None else f"{mark.earned:g}" for mark in result.marks]
        open_cases = "needs a person" if result.person and not result.settled else "written answers to read"
        state = "complete" if result.complete else open_cases
        number = students.number(result.student)
        start = [record.key, record.name, record.id, "" if number is None else str(number)[:40]]
        rows.append([*start, *points, f"{result.total:g}", f"{rubric.points:g}", state])
    save(out / "grades.csv", header, rows)


def _place(result: Result) -> Path:
    """Where the platform looks for a student's feedback: a folder, or a name that starts alike."""
    record = result.record
    return Path(f"{record.entry}{FEEDBACK}") if record.layout == "canvas" else Path(record.entry) / FEEDBACK


def _with_pictures(text: str) -> str:
    """The text, escaped, with its pictures: PNG and JPEG alone, which can run nothing."""
    parts, at = [], 0
    for match in PICTURE.finditer(text):
        kind, data = match[1] or match[3], match[2] or match[4]
        parts.append(_text(OTHER_DATA.sub(r"\1… (open the notebook)", text[at : match.start()])))
        parts.append(f'<img alt="" src="data:image/{kind.lower().replace("jpg", "jpeg")};base64,{data}">')
        at = match.end()
    return "".join(parts) + _text(OTHER_DATA.sub(r"\1… (open the notebook)", text[at:]))


def _text(text: str) -> str:
    return html.escape(str(text))


def _html(title: str, body: str, more: str = "") -> str:
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{_text(title)}</title><style>{STYLE}</style>{more}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body><main>{body}</main></body></html>\n'
