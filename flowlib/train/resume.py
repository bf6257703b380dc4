"""From a run to its checkpoint and back, and the settings that must be the same."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from flowlib.train.checkpoint import CheckpointError, check_model, load_checkpoint, previous, save_checkpoint
from flowlib.train.history import COLUMNS, History
from flowlib.train.randomness import get_random_state, set_random_state
from flowlib.train.ranks import rank_and_ranks
from flowlib.train.run import Run


class Saved:
    """The files of a run: its checkpoint, and its history as CSV; either may be None.

    Args:
        settings: what decides the result. A checkpoint is only for a run with the same.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None,
        every: int,
        history: str | os.PathLike[str] | None,
        settings: dict[str, Any],
    ) -> None:
        self.checkpoint = None if checkpoint is None else _file("checkpoint", checkpoint)
        self.history = None if history is None else _file("history", history)
        self.every, self.settings = every, settings
        if self.history is not None and self.history.exists() and not _is_history(self.history):
            raise ValueError(
                f"history={str(self.history)!r} is a file that fit did not write, and it would be "
                "overwritten; give another name."
            )

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def resume(self, run: Run) -> None:
        """Take the run to where its checkpoint stands, if there is one."""
        path = self.checkpoint
        if path is not None and (path.exists() or previous(path).exists()):
            content = load_checkpoint(path)
            check_model(run.flow, content, path)
            self._check_settings(run, content, path)
            _restore(run, content)
        if rank_and_ranks()[1] > 1:
            _check_same_step(run)

    def save(self, run: Run) -> None:
        """Write both files. A failure is a warning: the training goes on, and the next time may succeed."""
        content = _content(run, self.settings) if self.checkpoint else {}  # a part of it from every rank
        if rank_and_ranks()[0] > 0:
            return
        if self.history is not None:
            with _failing_softly(self.history, run):
                run.history.to_csv(self.history)
        if self.checkpoint is not None:
            with _failing_softly(self.checkpoint, run):
                save_checkpoint(self.checkpoint, content)

    def _check_settings(self, run: Run, content: dict[str, Any], path: Path) -> None:
        there = content["settings"]
        different = [
            f"{name} was {there.get(name)} and is {value}"
            for name, value in self.settings.items()
            if there.get(name) != value
        ]
        frozen = set(content["trained"]).symmetric_difference(_trained(run))
        different += [f"{name} is frozen in one of them" for name in sorted(frozen)[:1]]
        if different:
            raise CheckpointError(
                f"{path} belongs to another run: {'; '.join(different)}. To go on with it, call fit as then. "
                f"To begin anew, give another file, or delete this one and {previous(path).name}. To begin "
                "with what it learned, call load_parameters(flow, file) first and give fit another file."
            )


def fingerprint(data: Any, context: Tensor | None = None) -> str:
    """A short text that differs when the data do: shape, dtype and checksum, or a sampler's class."""
    if not isinstance(data, Tensor):
        return f"draws from {type(data).__qualname__}"
    checksum = 0
    for tensor in (data, context):
        if tensor is not None:
            numbers = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
            checksum = zlib.crc32(numbers.data, checksum)
    return f"{tuple(data.shape)} {str(data.dtype).removeprefix('torch.')} with checksum {checksum:08x}"


def _content(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    average = run.average
    return {
        "flow": dict(run.flow.state_dict()),
        "average": None if average is None else dict(average.module.state_dict()),
        "averaged": 0 if average is None else int(average.n_averaged),
        "best": run.best,
        "trained": _trained(run),
        "optimiser": run.optimiser.state_dict(),
        "step": run.step,
        "finished": run.finished,
        "history": _pack(run.history),
        "random": _random_states(run.flow.base.device),
        "batches": run.batches.state(),
        "settings": settings,
    }


def _restore(run: Run, content: dict[str, Any]) -> None:
    run.flow.load_state_dict(content["flow"])
    if run.average is not None:
        run.average.module.load_state_dict(content["average"])
        run.average.n_averaged.fill_(content["averaged"])
    run.best = content["best"]
    run.optimiser.load_state_dict(content["optimiser"])
    run.step, run.finished = content["step"], content["finished"]
    run.history = _unpack(content["history"])
    run.batches.load(content["batches"])
    rank, _ = rank_and_ranks()
    if rank < len(content["random"]):  # a rank that was not there before begins its own stream
        set_random_state(content["random"][rank], run.flow.base.device)


def _trained(run: Run) -> list[str]:
    return [name for name, parameter in run.flow.named_parameters() if parameter.requires_grad]


@contextmanager
def _failing_softly(file: Path, run: Run) -> Iterator[None]:
    """Turn a file that cannot be written into a warning."""
    try:
        yield
    except OSError as error:
        then = (
            "The training is over: make room and call fit again, which repeats what came after that."
            if run.finished
            else "The training goes on, and will try again."
        )
        warnings.warn(
            f"{file} could not be written after step {run.step} ({error}); what was written before is "
            f"still there. {then}",
            stacklevel=5,
        )


def _pack(history: History) -> dict[str, Any]:
    """As tensors: a list of a million numbers would take far longer to write."""
    numbers = {name: torch.tensor(getattr(history, name), dtype=torch.float64) for name in COLUMNS[1:4]}
    steps = torch.tensor([step for step, _ in history.validation], dtype=torch.long)
    values = torch.tensor([value for _, value in history.validation], dtype=torch.float64)
    return {**numbers, "validation": (steps, values), "seconds": history.seconds}


def _unpack(packed: dict[str, Any]) -> History:
    numbers = {name: packed[name].tolist() for name in COLUMNS[1:4]}
    steps, values = (part.tolist() for part in packed["validation"])
    return History(**numbers, validation=list(zip(steps, values, strict=True)), seconds=packed["seconds"])


def _random_states(device: torch.device) -> list[Any]:
    """Those of all ranks, on all ranks."""
    _, ranks = rank_and_ranks()
    mine = get_random_state(device)
    if ranks == 1:
        return [mine]
    states: list[Any] = [None] * ranks
    distributed.all_gather_object(states, mine)
    return states


def _check_same_step(run: Run) -> None:
    _, ranks = rank_and_ranks()
    steps: list[Any] = [None] * ranks
    distributed.all_gather_object(steps, run.step)
    if len(set(steps)) > 1:
        raise CheckpointError(
            f"The processes found checkpoints after different steps, {steps}: they must all see the same "
            "file, on a disk that they share."
        )


def _file(name: str, path: str | os.PathLike[str]) -> Path:
    """Refuse early what could not be written later; a folder that is missing is not made.

    It might be a drive that is not mounted yet, and what is written in its place would be lost.
    """
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"{name} must be a file, and {str(file)!r} is a folder.")
    if not file.parent.is_dir():
        raise ValueError(
            f"{name}={str(file)!r} lies in a folder that does not exist; make it first, or mount the drive "
            "that should hold it."
        )
    return file


def _is_history(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.readline().rstrip() == ",".join(COLUMNS).encode()
