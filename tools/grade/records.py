"""What is kept of one submission, and what came of judging it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools.grade.rubric import Check, Question, Reply


@dataclass
class Record:
    """All that is kept of one submission; enough to judge it again without running it."""

    key: str
    entry: str
    name: str
    id: str
    layout: str
    digest: str = ""  # of the notebook; where there is a problem, of all that was handed in
    file: str = ""
    problem: str = ""
    code: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    attachments: list[str] = field(default_factory=list)
    beside: str = ""  # the attachments' digest
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

    @property
    def version(self) -> str:
        """Another word for each state of what was handed in."""
        return _word([self.digest, self.beside])

    def version_of(self, question: Question) -> str:
        """Another word for each answer; points by hand are for the one that was there then."""
        if self.problem:
            return self.version
        return _word(self.code if question.judge else [self.written.get(question.id, ""), self.beside])


@dataclass
class Mark:
    """One question of one student: its checks, and the points, which are None until a person gives them."""

    question: Question
    earned: float | None
    checks: list[Check]
    comment: str = ""
    note: str = ""  # for whoever grades, not for the student


@dataclass
class Result:
    """What one student gets, and what a person must still look at."""

    record: Record
    marks: list[Mark]
    person: list[str]
    student: int | str | None = None
    settled: bool = False

    @property
    def total(self) -> float:
        """The points so far."""
        return sum(mark.earned or 0 for mark in self.marks)

    @property
    def complete(self) -> bool:
        """Whether nobody needs to read or look at anything."""
        return (self.settled or not self.person) and all(mark.earned is not None for mark in self.marks)


def digest_of(paths: list[Path]) -> str:
    """What these files hold, whatever they are called and wherever they lie."""
    contents = []
    for path in paths:
        with path.open("rb") as opened:
            contents.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return hashlib.sha256("".join(sorted(contents)).encode()).hexdigest()


def _word(parts: list[str]) -> str:
    """A digest that no spreadsheet takes for a number."""
    return "v" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]
