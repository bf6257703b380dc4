"""What is asked and what it is worth: questions, probes and checks, judged outside the student's process.

A rubric is a file ``nbs/assignments/N_rubric.py`` with ``rubric = Rubric(N, title)``. A question's function
takes a :class:`Probe`, asks for names with inputs of its own, and checks what comes back (``judging``)::

    @rubric.question("2.1", "The planar layer", 6, "planar")
    def layer(probe):
        probe.check(6, "x = z + u tanh(w·z + b)", lambda: near(probe.ask("planar", z, w, u, b), x))

A check that fails, for whatever reason a student can cause, gives no points and a sentence. Any other
error is the rubric's own, and sends the answer to a person.
"""

from __future__ import annotations

import base64
import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ASSIGNMENTS = Path(__file__).parents[2] / "nbs" / "assignments"
Reply = dict[str, Any]


class Wrong(Exception):
    """An answer that earns nothing; the message is the sentence that the student reads."""


class NotRecorded(Exception):
    """A changed rubric asks what this run was not asked; it must be run again."""


@dataclass(frozen=True)
class Code:
    """An argument that is a function: source that is evaluated beside the student's code."""

    source: str
    given: dict[str, Any] = field(default_factory=dict)


@dataclass
class Check:
    """One line of a student's feedback."""

    says: str
    points: float
    earned: float
    why: str = ""


@dataclass(frozen=True)
class Question:
    """What is asked; without a judge it is a written answer, which people read."""

    id: str
    title: str
    points: float
    names: tuple[str, ...] = ()
    judge: Callable[[Probe], None] | None = None


@dataclass
class Rubric:
    """The questions of one assignment in order."""

    number: int
    title: str
    cell_seconds: float = 60.0
    questions: list[Question] = field(default_factory=list)
    edition: Path | None = None  # the instructor's, where the rubric lies beside it

    def question(
        self, id: str, title: str, points: float, *names: str
    ) -> Callable[[Callable[[Probe], None]], Callable]:
        """Add a question that its decorated function judges."""

        def add(judge: Callable[[Probe], None]) -> Callable[[Probe], None]:
            self.questions.append(Question(id, title, points, names, judge))
            return judge

        return add

    def written(self, id: str, title: str, points: float) -> None:
        """Add a question that people read."""
        self.questions.append(Question(id, title, points))

    @property
    def names(self) -> set[str]:
        """Every name that is asked for."""
        return {name for question in self.questions for name in question.names}

    @property
    def points(self) -> float:
        """What a perfect answer to everything earns."""
        return sum(question.points for question in self.questions)

    def constants(self, student: int | str) -> random.Random:
        """The random numbers that a student's variant is drawn from; notebooks draw the same."""
        return random.Random(f"{term()}, assignment {self.number}, student {student}")


@dataclass
class Probe:
    """What a judge may do: ask for a name, call it with inputs, and note a check."""

    reply_to: Callable[[dict[str, Any]], Reply]
    student: int | str = 0
    checks: list[Check] = field(default_factory=list)

    def ask(self, name: str, *args: Any) -> Any:
        """What the student's function of that name returns."""
        return self._open(name, self.reply_to({"ask": name, "args": [pack(value) for value in args]}))

    def value(self, name: str) -> Any:
        """What stands under a name."""
        return self._open(name, self.reply_to({"ask": name, "args": None}))

    def check(self, points: float, says: str, judge: Callable[[], object]) -> None:
        """Give the points unless ``judge`` raises :class:`Wrong`."""
        try:
            judge()
        except Wrong as wrong:
            self.checks.append(Check(says, points, 0, str(wrong)))
        else:
            self.checks.append(Check(says, points, points))

    def _open(self, name: str, reply: Reply) -> Any:
        if "missing" in reply:
            raise Wrong(f"Nothing in the notebook is called {name}.")
        if "nothing" in reply:
            raise Wrong(f"{name} is not answered yet: it is or returns nothing.")
        if "late" in reply:
            raise Wrong(f"{name} took too long and was stopped.")
        for kind, says in (
            ("error", "failed with"),
            ("ended", "gave nothing, because"),
            ("other", "gave a value of type"),
        ):
            if kind in reply:
                raise Wrong(f"{name} {says} {str(reply[kind])[:300]}.")
        return unpack(reply)


def pack(value: Any) -> Reply:
    """An argument as plain data."""
    if isinstance(value, Code):
        return {"code": value.source, "given": {name: pack(entry) for name, entry in value.given.items()}}
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, list | tuple):
        return {"list": [pack(entry) for entry in value]}
    array = np.ascontiguousarray(value.detach().numpy() if isinstance(value, Tensor) else value)
    packed: Reply = {"array": base64.b64encode(array.tobytes()).decode(), "dtype": array.dtype.str}
    plain = {} if isinstance(value, Tensor) else {"plain": True}
    return packed | {"shape": list(np.shape(value))} | plain


def unpack(reply: Reply) -> Any:
    """A reply as tensors, texts and lists of them; raises :class:`Wrong` for anything else."""
    try:
        if "text" in reply:
            return str(reply["text"])
        if "list" in reply:
            return [unpack(entry) for entry in reply["list"]]
        kind = np.dtype(str(reply["dtype"]))
        if kind.kind not in "biufc":
            raise ValueError
        array = np.frombuffer(base64.b64decode(reply["array"]), kind).reshape(
            [int(n) for n in reply["shape"]]
        )
        return torch.from_numpy(array.astype(kind.newbyteorder("=")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Wrong("What came back is neither numbers nor text.") from None


def term() -> str:
    """The word that all variants hang on; a new one gives every student other numbers."""
    return (ASSIGNMENTS / "term.txt").read_text("utf-8").strip()


def paths(number: int, folder: Path | None = None) -> tuple[Path, Path]:
    """The instructor's edition and the rubric of one assignment."""
    folder = folder or ASSIGNMENTS
    notebooks = sorted(folder.glob(f"{number}_*.ipynb"))
    if not notebooks:
        raise FileNotFoundError(f"There is no assignment {number} in {folder}.")
    return notebooks[0], folder / f"{number}_rubric.py"


def load(number: int, folder: Path | None = None) -> Rubric:
    """The rubric of one assignment."""
    edition, path = paths(number, folder)
    spec = importlib.util.spec_from_file_location(f"rubric_{number}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.rubric.edition = edition
    return module.rubric


def load_all(folder: Path | None = None) -> Iterator[Rubric]:
    """Every rubric, to tell one assignment's notebook from another's."""
    for path in sorted((folder or ASSIGNMENTS).glob("[0-9]*_rubric.py")):
        yield load(int(path.name.split("_")[0]), folder)
