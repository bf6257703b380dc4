"""Writes the students' editions of the assignments: ``python -m tools.assignments [2 3 …]``.

The instructor's edition is the one source. What stands between ``# BEGIN SOLUTION: stub`` and
``# END SOLUTION`` in a code cell becomes the stub (``...  # your code`` if none is given); between the same
words in HTML comments, in Markdown, a place to write. Then the result is searched for what must not be in
it, and both editions are run: the solutions must earn every point and the stubs none.
"""

from __future__ import annotations

import copy
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools import repo, setup_cell
from tools.grade import grading, sandbox
from tools.grade.notebooks import PLACE
from tools.grade.rubric import ASSIGNMENTS, Rubric, load, paths, term
from tools.grade.session import Limits
from tools.grade.submissions import Submission

OUT = Path(__file__).parents[1] / "_build" / "assignments"
CODE = re.compile(r"^( *)# BEGIN SOLUTION(?:: ([^\n]*))?\n(.*?)^ *# END SOLUTION$", re.M | re.S)
TEXT = re.compile(r"<!-- BEGIN SOLUTION -->(.*?)<!-- END SOLUTION -->", re.S)
TERM = re.compile(r'^TERM = ".*"', re.M)
LECTURE = re.compile(r"\]\(\.\./(\w+)\.ipynb\)")
STUB = "...  # your code"


class Leak(Exception):
    """A student's edition that may not be given out; the message says what is in it."""


def student_edition(notebook: NotebookNode) -> NotebookNode:
    """The same notebook without solutions, outputs, ids or metadata of the instructor's."""
    released = nbformat.v4.new_notebook(metadata=copy.deepcopy(notebook.metadata))
    for number, cell in enumerate(notebook.cells):
        source = CODE.sub(_stub, cell.source) if cell.cell_type == "code" else TEXT.sub(PLACE, cell.source)
        if setup_cell.is_setup(cell):
            source = setup_cell.source()
        source = LECTURE.sub(lambda link: f"]({lecture(link[1])})", _this_term(source))
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        released.cells.append(make(source, id=f"cell-{number + 1:02}"))
    return released


def lecture(name: str) -> str:
    """Where students read a lecture: in the book, or in the repository where that has no pages."""
    address = setup_cell.repository()
    book = repo.pages(address)
    return f"{book}nbs/{name}.html" if book else f"{address}/blob/main/nbs/{name}.ipynb"


def secrets(notebook: NotebookNode, rubric_source: str) -> Iterator[str]:
    """Every line that students may not see: of solutions, and of the rubric."""
    given = "\n".join(cell.source for cell in student_edition(notebook).cells)
    solutions = [
        match[0] for cell in notebook.cells for form in (CODE, TEXT) for match in form.finditer(cell.source)
    ]
    for line in map(str.strip, "\n".join(solutions).splitlines()):
        imported = line.startswith(("import ", "from ", "# BEGIN", "def "))
        if not imported and (len(line) >= 30 or (len(line) >= 12 and line not in given)):
            yield line
    # the rubric draws a variant's numbers with the notebook's own lines
    yield from (
        line for line in map(str.strip, rubric_source.splitlines()) if len(line) >= 12 and line not in given
    )
    yield from ("BEGIN SOLUTION", "END SOLUTION", "_rubric", "probe.ask", "tools.grade")


def leaks(notebook: NotebookNode, rubric_source: str, data: bytes) -> list[str]:
    """The secrets that a student's edition holds, in its text or anywhere else in its bytes."""
    written = data.decode("utf-8")
    plain = "\n".join(str(value) for value in _strings(nbformat.reads(written, 4)))
    return [line for line in secrets(notebook, rubric_source) if line in written or line in plain]


def score(path: Path, rubric: Rubric) -> grading.Result:
    """Run an edition of one's own with this term's numbers and judge it, without a sandbox: it is ours."""
    trusted = sandbox.find([], trust=sandbox.TRUST)
    with tempfile.TemporaryDirectory() as folder:
        notebook = nbformat.read(path, 4)
        for cell in notebook.cells:
            cell.source = _this_term(cell.source)
        nbformat.write(notebook, copied := Path(folder, path.name))
        one = Submission(path.stem, path.stem, "", "flat", [copied])
        limits = Limits(cell_seconds=10 * rubric.cell_seconds, seconds=1200)
        return grading.grade_one(one, rubric, [], trusted, limits, Path(folder))[0]


def release(number: int, out: Path = OUT, folder: Path = ASSIGNMENTS) -> Path:
    """Write one student's edition.

    Raises:
        Leak: if a solution or a hidden check is in it.
    """
    path, rubric_path = paths(number, folder)
    notebook = nbformat.read(path, 4)
    data = (nbformat.writes(student_edition(notebook)).rstrip("\n") + "\n").encode()
    if found := leaks(notebook, rubric_path.read_text("utf-8"), data):
        raise Leak(f"{path.name}: the student's edition would hold “{found[0]}”.")
    out.mkdir(parents=True, exist_ok=True)
    (out / path.name).write_bytes(data)
    return out / path.name


def main(words: list[str]) -> int:
    """Release the named assignments, or all, and say what both editions earn."""
    numbers = [int(word) for word in words] or sorted(
        int(path.name.split("_")[0]) for path in ASSIGNMENTS.glob("[0-9]*_rubric.py")
    )
    if "YOUR_ACCOUNT" in setup_cell.repository():
        print(
            "The set-up cell and the links name YOUR_ACCOUNT, so these editions cannot install flowlib on "
            "Colab: run make repo URL=https://github.com/ACCOUNT/NAME, then this again.",
            file=sys.stderr,
        )
    failed = 0
    for number in numbers:
        rubric = load(number)
        try:
            released = release(number)
        except Leak as leak:
            print(leak, file=sys.stderr)
            failed += 1
            continue
        solved, untouched = score(paths(number)[0], rubric), score(released, rubric)
        most = sum(question.points for question in rubric.questions if question.judge)
        print(
            f"{released}: solutions {solved.total:g} of {most:g}, untouched {untouched.total:g}", flush=True
        )
        for check in (check for mark in solved.marks for check in mark.checks if check.earned < check.points):
            print(f"  {check.says}: {check.why}", file=sys.stderr)
        wrong = solved.total != most or untouched.total or solved.person or solved.record.troubles
        for trouble in solved.record.troubles.items():
            print("  cell {}: {}".format(*trouble), file=sys.stderr)
        failed += bool(wrong)
    return 1 if failed else 0


def _this_term(source: str) -> str:
    return TERM.sub(f'TERM = "{term()}"', source)


def _stub(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2] or STUB}"


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield str(key)
            yield from _strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
