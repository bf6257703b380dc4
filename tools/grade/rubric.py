"""What is asked and what it is worth: questions, probes and checks, judged outside the student's process.

A rubric is a file ``nbs/assignments/N_rubric.py`` with ``rubric = Rubric(N, title)``. A question's function
takes a :class:`Probe`, asks for names with inputs of its own, and checks what comes back::

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

    def constants(self, student: int) -> random.Random:
        """The random numbers that a student's variant is drawn from; notebooks draw the same."""
        return random.Random(f"{term()}, assignment {self.number}, student {student}")


@dataclass
class Probe:
    """What a judge may do: ask for a name, call it with inputs, and note a check."""

    reply_to: Callable[[dict[str, Any]], Reply]
    student: int = 0
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


def numbers(got: Any, shape: tuple[int, ...]) -> Tensor:
    """The answer in double precision, if it is finite numbers of that shape."""
    if isinstance(got, list):
        try:
            got = torch.stack([entry.double() for entry in got])
        except (RuntimeError, AttributeError, TypeError):
            raise Wrong(f"It is a list of {len(got)} things, not numbers of shape {shape}.") from None
    if isinstance(got, int | float):  # a number that the rubric has worked out
        got = torch.tensor(got, dtype=torch.float64)
    if not isinstance(got, Tensor):
        raise Wrong(f"It is text (“{str(got)[:60]}”), not numbers.")
    if got.dtype == torch.bool or got.is_complex():
        raise Wrong(f"It has the type {got.dtype}; real numbers were asked for.")
    if shape == () and got.numel() == 1:
        got = got.reshape(())
    if tuple(got.shape) != shape:
        raise Wrong(f"It has shape {tuple(got.shape)}; {shape} was asked for.")
    if bad := int((~torch.isfinite(got.double())).sum()):
        raise Wrong(f"{bad} of its {got.numel()} numbers are NaN or infinite.")
    return got.double()


def near(got: Any, want: Tensor | float, tol: float = 1e-6) -> None:
    """Raise :class:`Wrong` unless the numbers agree to ``tol``, absolute and relative to the largest."""
    want = torch.as_tensor(want, dtype=torch.float64)
    single = isinstance(got, Tensor) and got.dtype == torch.float32
    answer = numbers(got, tuple(want.shape))
    error = (answer - want).abs()
    allowed = tol * max(1.0, want.abs().max().item() if want.numel() else 1.0)
    off = int((error > allowed).sum())
    if not off:
        return
    size = f"{off} of {want.numel()} numbers are" if want.numel() > 1 else "It is"
    sentence = (
        f"{size} off, by {error.max():.3g} at most."
        if want.numel() > 1
        else f"It is off by {error.max():.3g}."
    )
    raise Wrong(sentence + _hint(answer, want, allowed) + (" It came in single precision." if single else ""))


def at_most(got: Any, bound: float) -> None:
    """Raise :class:`Wrong` unless one number is at most ``bound``."""
    value = numbers(got, ()).item()
    if not value <= bound:
        raise Wrong(f"It is {value:.4g}; at most {bound:.4g} was asked for.")


def slopes(function: Callable[[Tensor], Tensor], points: Tensor, step: float = 1e-5) -> Tensor:
    """Jacobians ``(B, m, d)`` by central differences, by no autograd that one could tamper with."""
    shifts = step * torch.eye(points.shape[1], dtype=points.dtype)
    both = torch.cat([points[:, None] + shifts, points[:, None] - shifts], 1).flatten(0, 1)
    up, down = function(both).unflatten(0, (len(points), -1)).chunk(2, 1)
    return ((up - down) / (2 * step)).mT


def log_volume(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """``log|det|`` of the Jacobian of any function, by central differences."""
    return torch.linalg.slogdet(slopes(function, points)).logabsdet


def draw(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers in double precision that no notebook has."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7919 * seed + 13))


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
    path = paths(number, folder)[1]
    spec = importlib.util.spec_from_file_location(f"rubric_{number}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.rubric


def load_all(folder: Path | None = None) -> Iterator[Rubric]:
    """Every rubric, to tell one assignment's notebook from another's."""
    for path in sorted((folder or ASSIGNMENTS).glob("[0-9]*_rubric.py")):
        yield load(int(path.name.split("_")[0]), folder)


def _hint(answer: Tensor, want: Tensor, allowed: float) -> str:
    """What a sign or a factor that is the same everywhere looks like."""
    scale = want.abs().max().item()
    if scale <= allowed:
        return ""
    factor = ((answer * want).sum() / (want * want).sum()).item()
    if (
        abs(factor) > 1e-3
        and (answer - factor * want).abs().max().item() <= 10 * allowed
        and want.numel() > 1
    ):
        if abs(factor + 1) < 1e-3:
            return " The sign is the other way round."
        return f" It is {factor:.3g} times what was expected."
    shift = (answer - want).mean().item()
    if want.numel() > 1 and (answer - want - shift).abs().max().item() <= 10 * allowed:
        return f" It is what was expected {'plus' if shift > 0 else 'minus'} {abs(shift):.4g} everywhere."
    return ""
