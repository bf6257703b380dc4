"""What it costs to grade a hundred: ``python -m benchmarks.grading [100]`` writes ``results/grading.json``.

A hundred submissions of assignment 2 in Moodle's layout, each with a number of its own and the solutions'
code: all is run, trained and judged, as in the worst case. Two notebooks run at a time. Beside the
time of the clock stands the processor's, which a busy machine does not change.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from benchmarks.machine import describe
from tools.grade import by_hand, grading, report, sandbox, submissions
from tools.grade.rubric import load, load_all, paths
from tools.grade.session import Limits

RESULTS = Path(__file__).parent / "results" / "grading.json"


def write_submissions(students: int, folder: Path) -> None:
    """One notebook a student: the instructor's edition with another student number."""
    source = paths(2)[0]
    for student in range(1, students + 1):
        notebook = nbformat.read(source, 4)
        for cell in notebook.cells:
            cell.source = cell.source.replace("STUDENT = 0", f"STUDENT = {1000 + student}")
        place = folder / f"Student {student:03}_{student}_assignsubmission_file"
        place.mkdir(parents=True)
        nbformat.write(notebook, place / "assignment.ipynb")


def graded(folder: Path, out: Path) -> Iterator[tuple[float, grading.Result]]:
    """Each result with the seconds since the start."""
    rubric, found = load(2), submissions.find(folder)
    others = [other for other in load_all() if other.number != 2]
    box = sandbox.find([folder, out])
    limits = Limits(cell_seconds=rubric.cell_seconds)
    begun = time.perf_counter()
    for result, _ in grading.grade_all(found, rubric, others, box, limits, out):
        yield time.perf_counter() - begun, result


def measure(students: int) -> dict[str, Any]:
    """Grade everybody, grade again when nothing changed, and say what it took."""
    folder = Path(tempfile.mkdtemp(prefix="grading-"))
    try:
        write_submissions(students, folder / "in")
        rubric, out = load(2), folder / "out"
        results, times, loads = [], [], []
        for seconds, result in graded(folder / "in", out):
            results.append(result)
            times.append(seconds)
            loads.append(os.getloadavg()[0])
            print(f"{len(results)}/{students}: {seconds:.0f} s, {result.total:g} points", flush=True)
        again = [seconds for seconds, _ in graded(folder / "in", out)][-1]
        begun = time.perf_counter()
        by_hand.write(results, out)
        report.write(rubric, results, out)
        pages = time.perf_counter() - begun
        stored = sum(path.stat().st_size for path in (out / "records").iterdir())
    finally:
        shutil.rmtree(folder)
    full = sum(question.points for question in rubric.questions if question.judge)
    half = times[students // 2 - 1]
    return {
        "assignment": 2,
        "students": students,
        "at_a_time": 2,
        "full_marks": sum(result.total == full for result in results),
        "mean_load_of_the_machine": round(sum(loads) / students, 1),
        "seconds": round(times[-1], 1),
        "seconds_per_student": round(times[-1] / students, 2),
        "seconds_of_the_first_half": round(half, 1),
        "processor_seconds_per_student": round(
            sum(result.record.processor_seconds for result in results) / students, 2
        ),
        "seconds_when_nothing_changed": round(again, 1),
        "seconds_for_all_pages": round(pages, 1),
        "largest_sandbox_mb": max(result.record.memory for result in results) >> 20,
        "grader_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "stored_kb_per_student": round(stored / 1024 / students, 1),
    }


def main(words: list[str]) -> None:
    """Measure, print and store."""
    measured = measure(int(words[0]) if words else 100)
    RESULTS.write_text(json.dumps({"machine": describe(), "grading": measured}, indent=2) + "\n", "utf-8")
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
