"""The command line: ``grade``, ``regrade`` and ``similar``."""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import zipfile
from pathlib import Path

from tools.grade import (
    by_hand,
    grading,
    report,
    sandbox,
    similar,
    students,
    submissions,
    tables,
    worksheet,
)
from tools.grade.records import Record, Result
from tools.grade.rubric import ASSIGNMENTS, Rubric, load, load_all
from tools.grade.session import Limits

ASSIGNMENT = "assignment.txt"  # in the folder of what comes out: the number of whose it is
HOW = """
  python -m tools.grade 2 submissions.zip --out graded
  python -m tools.grade regrade 2 --out graded --worksheet Grades.csv
  python -m tools.grade similar 2 --out graded
"""


def arguments(words: list[str]) -> argparse.Namespace:
    """Read the command line; without a word in front it is ``grade``."""
    parser = argparse.ArgumentParser(
        "python -m tools.grade", epilog=HOW, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, says in {
        "grade": "run and grade what was handed in (the word may be left out)",
        "regrade": "grade the stored answers anew and read what people filled in; runs nobody's code",
        "similar": "show similar answers side by side",
    }.items():
        one = commands.add_parser(name, help=says, description=says)
        one.add_argument("number", type=int, help="of the assignment")
        if name == "grade":
            one.add_argument("submissions", type=Path, help="the folder or zip that the platform gave")
            one.add_argument(
                "--again", default="", metavar="NAME", help="run whose names hold this once more"
            )
            one.add_argument(
                "--drop-absent",
                action="store_true",
                help="forget the answers of all who are not in the folder",
            )
            one.add_argument(
                "--workers", type=int, default=2, help="how many notebooks at a time (default 2)"
            )
            one.add_argument("--image", default="", help="with the course's packages, for podman or docker")
            one.add_argument(
                "--trust", default="", metavar="WORDS", help=f"“{sandbox.TRUST}”: run without a sandbox"
            )
            one.add_argument(
                "--seconds", type=float, default=0, help="for one cell (default: the assignment's)"
            )
        one.add_argument("--out", type=Path, required=True, help="the folder for what comes out")
        if name != "similar":
            one.add_argument("--worksheet", type=Path, help="the platform's table, to be filled in")
            one.add_argument("--column", default="", help="header of the column that takes the points")
        one.add_argument("--assignments", type=Path, default=ASSIGNMENTS, help=argparse.SUPPRESS)
    return parser.parse_args(["grade", *words] if words and words[0].isdigit() else words)


def main(words: list[str]) -> int:
    """Return 0 if all went well, 2 if nothing could be done."""
    given = arguments(words)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a name in emoji must not stop a terminal in Latin-1
    try:
        rubric = load(given.number, given.assignments)
        _check_folder(given)
        if given.command == "similar":
            return similar.compare(given.number, given.out, given.assignments)
        results = _grade(given, rubric) if given.command == "grade" else grading.regrade(rubric, given.out)
        return _report(given, rubric, results)
    except (sandbox.NoSandbox, tables.Unreadable, OSError, csv.Error, zipfile.BadZipFile) as problem:
        print(problem, file=sys.stderr)
        return 2


def _check_folder(given: argparse.Namespace) -> None:
    """See that the folder is this assignment's: with another's rubric no row by hand would fit anybody."""
    noted, out = given.out / ASSIGNMENT, given.out
    if noted.exists() and (number := noted.read_text("utf-8").strip()) != str(given.number):
        raise FileExistsError(
            f"{out} holds assignment {number}, not {given.number}. Give the number {number}, or another "
            "folder after --out. Nothing was changed."
        )
    if given.command != "grade" and not any((out / "records").glob("*.json")):
        raise FileNotFoundError(
            f"{out} holds nothing that was graded. See that the folder after --out is the one of “grade”."
        )


def _find(given: argparse.Namespace) -> list[submissions.Submission]:
    """Whoever is in the folder or zip."""
    folder = given.submissions
    if folder.is_file():
        # each zip has its own place: what another one brought is still pointed at by the pages
        folder = given.out / "submissions" / folder.stem
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for sentence in submissions.unpack(given.submissions, folder):
            print(sentence, file=sys.stderr)
    if found := submissions.find(folder):
        return found
    raise FileNotFoundError(
        f"{given.submissions} holds nobody's work: a folder or a notebook for each student was expected. "
        "Nothing was graded, and nothing that was graded before has changed."
    )


def _grade(given: argparse.Namespace, rubric: Rubric) -> list[Result]:
    out: Path = given.out
    given.submissions.stat()
    out.mkdir(parents=True, exist_ok=True)
    (out / ".gitignore").write_text("*\n")  # names and points belong into no repository
    used = sandbox.find([given.assignments, out, given.submissions], given.image, given.trust)
    found = _find(given)
    (out / ASSIGNMENT).write_text(f"{rubric.number}\n", "utf-8")
    keys = {one.key for one in found}
    for path in (out / "records").glob("*.json"):
        again = given.again and given.again.casefold() in (Record.load(path) or path).name.casefold()
        if again if path.stem in keys else given.drop_absent:
            path.unlink()
    others = [other for other in load_all(given.assignments) if other.number != rubric.number]
    limits = Limits(cell_seconds=given.seconds or rubric.cell_seconds)
    print(f"Assignment {rubric.number}, {len(found)} submissions, {used.kind}.")
    results = []
    for result, ran in grading.grade_all(found, rubric, others, used, limits, out, given.workers):
        results.append(result)
        share = len(results) / len(found)
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        took = f"{result.record.seconds:4.0f} s" if ran else "     –" if result.record.problem else "  kept"
        print(
            f"{bar} {len(results):3}/{len(found)} {took}  {result.record.name}:",
            report.line(result, rubric),
            flush=True,
        )
    if absent := grading.regrade(rubric, out, but=keys):
        print(
            f"{len(absent)} of earlier runs are not in {given.submissions}, and their results stay. "
            "With --drop-absent they go."
        )
    return sorted(results + absent, key=grading.order)


def _report(given: argparse.Namespace, rubric: Rubric, results: list[Result]) -> int:
    students.note_numbers(results, rubric)
    complaints = by_hand.apply(results, given.out)
    by_hand.write(results, given.out)
    report.write(rubric, results, given.out)
    if given.worksheet:
        try:
            target, filled = worksheet.fill(given.worksheet, rubric, results, given.out, given.column)
            print(f"{target}: {filled} rows filled in.")
        except (worksheet.Unclear, OSError, csv.Error) as unclear:
            complaints.append(str(unclear))
    open_cases = [result for result in results if result.person and not result.settled]
    complete = sum(result.complete for result in results)
    print(
        f"{len(results)} graded, {complete} complete,",
        f"{len(open_cases)} need a person: {given.out / by_hand.PERSON}",
    )
    for result in open_cases:
        print(f"- {result.record.name}: {' '.join(result.person)}")
    for result in results:
        for mark in result.marks:
            if mark.earned is None and mark.note.startswith(by_hand.ANEW):
                print(f"- {result.record.name}, question {mark.question.id}: {mark.note}. Read it again.")
    print(f"Written answers: {given.out / 'written'}; points for them go into {given.out / by_hand.POINTS}.")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
