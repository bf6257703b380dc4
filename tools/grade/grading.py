"""From a folder of submissions to results: who must be run, what was replied, and what that is worth."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.grade import students, submissions, written
from tools.grade.notebooks import NeedsPerson, Notebook
from tools.grade.records import Mark, Record, Result, digest_of
from tools.grade.rubric import Check, NotRecorded, Probe, Reply, Rubric, Wrong
from tools.grade.sandbox import Sandbox
from tools.grade.session import Limits, Session
from tools.grade.submissions import Submission

UNSTORED = 1 << 20  # a reply of more text than this is nobody's answer


def judge(record: Record, rubric: Rubric, reply_to: Callable[[dict[str, Any]], Reply]) -> Result:
    """Judge what a notebook replies.

    Raises:
        NotRecorded: if the rubric asks what was never asked.
    """
    if record.problem:
        return Result(record, [Mark(question, None, []) for question in rubric.questions], [record.problem])
    person, marks = [], []
    student = students.seed(reply_to)
    for question in rubric.questions:
        if question.judge is None:
            marks.append(Mark(question, None, []))
            continue
        probe = Probe(reply_to, 0 if student is None else student)
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
    beside = [path for path in one.files if path.suffix.lower() not in (".ipynb", ".zip")]
    record.attachments, record.beside = [str(path) for path in beside], digest_of(beside)
    try:
        notebook = submissions.choose(one, rubric, others, out / "unpacked" / one.key)
    except NeedsPerson as problem:
        record.problem, record.digest = str(problem), digest_of(one.files)
        record.save(out / "records")
        return judge(record, rubric, from_record(record)), False
    record.digest, record.file = notebook.digest, notebook.path.name
    record.code, record.written = notebook.code, written.answers(notebook.words, rubric)
    old = Record.load(out / "records" / f"{one.key}.json")
    if old and old.digest == notebook.digest and not old.problem:
        # the run stays; what lies beside the notebook, and what the platform calls it, may be new
        fresh = {
            name: getattr(record, name) for name in ("entry", "file", "written", "attachments", "beside")
        }
        kept = replace(old, **fresh)
        try:
            result = judge(kept, rubric, from_record(kept))
        except NotRecorded:
            pass
        else:
            if kept != old:
                kept.save(out / "records")
            return result, False
    return _run(record, notebook, rubric, sandbox, limits, out), True


def _run(
    record: Record, notebook: Notebook, rubric: Rubric, sandbox: Sandbox, limits: Limits, out: Path
) -> Result:
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


def regrade(rubric: Rubric, out: Path, but: Container[str] = ()) -> list[Result]:
    """Judge all records anew, but those with these keys; nobody's code is run."""
    results = []
    for path in sorted((out / "records").glob("*.json")):
        if path.stem in but:
            continue
        record = Record.load(path)
        if record is None:
            raise FileNotFoundError(f"{path} is damaged; delete it and grade again.")
        try:
            results.append(judge(record, rubric, from_record(record)))
        except NotRecorded:
            marks = [Mark(question, None, []) for question in rubric.questions]
            why = "The rubric now asks what this notebook was not asked when it ran; grade again."
            results.append(Result(record, marks, [why]))
            with suppress(NotRecorded):
                results[-1].student = students.seed(from_record(record))
    return sorted(results, key=order)


def order(result: Result) -> tuple[str, str]:
    """By name, in every table and on every page."""
    return result.record.name.casefold(), result.record.key


def _key(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:24]
