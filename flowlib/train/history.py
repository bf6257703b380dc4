"""What happened at every step of a training."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

from flowlib.train.files import replacing

COLUMNS = ["step", "loss", "lr", "grad_norm", "validation"]


@dataclass(repr=False)
class History:
    r"""What happened at every step, in order.

    Attributes:
        loss: the loss of the step's batch, in nats, before the step's update.
        lr: the learning rate of the update.
        grad_norm: the length of the gradient before clipping.
        validation: pairs of a number of steps and the mean of :math:`-\log p` over the held-out points
            after them, in nats.
        seconds: the wall time of all steps; a resumed run adds to it.
        interrupted: whether the run was stopped by hand before its last step.

    Example:
        >>> History(loss=[3.0, 2.5, 2.0])
        History(3 steps, loss 3.000 → 2.000)
    """

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def __repr__(self) -> str:
        if not self.loss:
            return "History(no steps)"
        end = ", interrupted" if self.interrupted else ""
        return f"History({len(self.loss)} steps, loss {self.loss[0]:.3f} → {self.loss[-1]:.3f}{end})"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line for each step: its number from 1, loss, lr, grad_norm, and validation or nothing.

        The file is replaced as a whole, so whoever reads it while training goes on never sees half of it.
        Numbers are written with all their digits: reading them gives the same numbers.

        Raises:
            OSError: if the file cannot be written.
        """
        validation = dict(self.validation)
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        steps = zip(self.loss, self.lr, self.grad_norm, strict=True)
        for step, numbers in enumerate(steps, start=1):
            rows.writerow([step, *map(repr, numbers), repr(validation[step]) if step in validation else ""])
        with replacing(Path(path), text.getvalue().encode()):
            pass


__all__ = ["History"]
