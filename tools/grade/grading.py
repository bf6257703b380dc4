"""From a folder of submissions to results: who must be run, what was replied, and what that is worth."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.grade import submissions
from tools.grade.notebooks import NeedsPerson, Notebook
from tools.grade.rubric import Check, NotRecorded, Probe, Question, Reply, Rubric, Wrong
from tools.grade.sandbox import Sandbox
from tools.grade.session import Limits, Session
from tools.grade.submissions import Submission

UNSTORED = 1 << 20  # a reply of more text than this is nobody's answer


@dataclass
class Record:
    """All that is kept of one submission; enough to judge it again without running it."""

    key: str
    entry: str
    name: str
    id: str
    layout: str
    digest: str = ""
    file: str = ""
    problem: str = ""
    code: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    attachments: list[str] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    seconds: float = 0.0
    processor_seconds: float = 0.0
    memory: int = 0

    def save(self, folder: Path) -> None:
        """Write it whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{self.key}.partial"
        partial.write_text(json.dumps(asdict(self)), "utf-8")
        os.replace(partial, folder / f"{self.key}.json")

    @staticmethod
    def load(path: Path) -> Record | None:
        """Read it back; None if there is none, or it was damaged."""
        try:
            return Record(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None


@dataclass
class Mark:
    """One question of one student: its checks, and the points, which are None until a person gives them."""

    question: Question
    earned: float | None
    checks: list[Check]
    comment: str = ""


@dataclass
class Result:
    """What one student gets, and what a person must still look at."""

    record: Record
    marks: list[Mark]
    person: list[str]
    student: int = 0
    settled: bool = False

    @property
    def total(self) -> float:
        """The points so far."""
        return sum(mark.earned or 0 for mark in self.marks)

    @property
    def complete(self) -> bool:
        """Whether nobody needs to read or look at anything."""
        return (self.settled or not self.person) and all(mark.earned is not None for mark in self.marks)


def judge(record: Record, rubric: Rubric, reply_to: Callable[[dict[str, Any]], Reply]) -> Result:
    """Judge what a notebook replies.

    Raises:
        NotRecorded: if the rubric asks what was never asked.
    """
    if record.problem:
        return Result(record, [Mark(question, None, []) for question in rubric.questions], [record.problem])
    person, marks = [], []
    student = _student(reply_to)
    for question in rubric.questions:
        if question.judge is None:
            marks.append(Mark(question, None, []))
            continue
        probe = Probe(reply_to, student)
        try:
            question.judge(probe)
        except NotRecorded:
            raise
        except Wrong as wrong:
            probe.checks = [Check(question.title, question.points, 0, str(wrong))]
        except Exception as error:
            person.append(
                f"The rubric's own check of question {question.id} failed: {type(error).__name__}: {error}"
            )
            marks.append(Mark(question, None, probe.checks))
            continue
        marks.append(Mark(question, sum(check.earned for check in probe.checks), probe.checks))
    return Result(record, marks, person, student)


def from_record(record: Record) -> Callable[[dict[str, Any]], Reply]:
    """Answer from what was recorded."""

    def reply_to(request: dict[str, Any]) -> Reply:
        if (key := _key(request)) not in record.replies:
            raise NotRecorded
        return record.replies[key]

    return reply_to


def grade_one(
    one: Submission, rubric: Rubric, others: list[Rubric], sandbox: Sandbox, limits: Limits, out: Path
) -> tuple[Result, bool]:
    """Grade one submission, from its record if nothing changed; return also whether it was run."""
    record = Record(one.key, one.entry, one.name, one.id, one.layout)
    record.attachments = [str(path) for path in one.files if path.suffix.lower() not in (".ipynb", ".zip")]
    try:
        notebook = submissions.choose(one, rubric, others, out / "unpacked" / one.key)
    except NeedsPerson as problem:
        record.problem = str(problem)
        record.save(out / "records")
        return judge(record, rubric, from_record(record)), False
    old = Record.load(out / "records" / f"{one.key}.json")
    if old and old.digest == notebook.digest and not old.problem:
        try:
            return judge(old, rubric, from_record(old)), False
        except NotRecorded:
            pass
    return _run(record, notebook, rubric, sandbox, limits, out), True


def _run(
    record: Record, notebook: Notebook, rubric: Rubric, sandbox: Sandbox, limits: Limits, out: Path
) -> Result:
    record.digest, record.file = notebook.digest, notebook.path.name
    record.code, record.written = notebook.code, notebook.written
    session = Session(notebook.code, sandbox, limits)

    def reply_to(request: dict[str, Any]) -> Reply:
        key = _key(request)
        if key not in record.replies:
            reply = session.ask(request)
            large = len(str(reply.get("text", ""))) > UNSTORED
            record.replies[key] = {"other": "a text that is too long"} if large else reply
        return record.replies[key]

    begun = time.monotonic()
    try:
        session.run()
        result = judge(record, rubric, reply_to)
    finally:
        session.finish()
    record.seconds = time.monotonic() - begun
    record.processor_seconds, record.memory = session.processor_seconds, session.memory
    record.troubles = {str(cell): sentence for cell, sentence in sorted(session.troubles.items())}
    record.save(out / "records")
    return result


def grade_all(
    found: list[Submission],
    rubric: Rubric,
    others: list[Rubric],
    sandbox: Sandbox,
    limits: Limits,
    out: Path,
    workers: int = 2,
) -> Iterator[tuple[Result, bool]]:
    """Grade everyone, some at a time, and yield each result when it is there."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        jobs = [pool.submit(grade_one, one, rubric, others, sandbox, limits, out) for one in found]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def regrade(rubric: Rubric, out: Path) -> list[Result]:
    """Judge all records anew; nobody's code is run."""
    results = []
    for path in sorted((out / "records").glob("*.json")):
        record = Record.load(path)
        if record is None:
            raise FileNotFoundError(f"{path} is damaged; delete it and grade again.")
        try:
            results.append(judge(record, rubric, from_record(record)))
        except NotRecorded:
            marks = [Mark(question, None, []) for question in rubric.questions]
            why = "The rubric now asks what this notebook was not asked when it ran; grade again."
            results.append(Result(record, marks, [why]))
    return sorted(results, key=lambda result: (result.record.name.casefold(), result.record.key))


def note_shared_numbers(results: list[Result]) -> None:
    """Two students with one number have one variant: a person should know."""
    same = defaultdict(list)
    for result in results:
        if result.student:
            same[result.student].append(result)
    for number, group in same.items():
        for result in group:
            names = ", ".join(other.record.name for other in group if other is not result)
            if names:
                result.person.append(f"The student number {number} is also given by {names}.")


def _student(reply_to: Callable[[dict[str, Any]], Reply]) -> int:
    try:
        return int(Probe(reply_to).value("STUDENT"))
    except (Wrong, ValueError, TypeError, RuntimeError, OverflowError):
        return 0


def _key(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:24]
