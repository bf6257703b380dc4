"""All that the next step of a training depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from flowlib.flow import Flow
from flowlib.train.batches import Batches
from flowlib.train.history import History


@dataclass
class Run:
    """A training between two steps.

    Attributes:
        average: the moving average of the flow, or None.
        best: the parameters and buffers of the best validation so far.
        step: how many steps are done.
        finished: whether there is nothing left to do, after the last step or an early stop.
    """

    flow: Flow
    optimiser: Optimizer
    batches: Batches
    average: AveragedModel | None = None
    best: dict[str, Tensor] | None = None
    history: History = field(default_factory=History)
    step: int = 0
    finished: bool = False

    @property
    def model(self) -> Flow:
        """What validation and samples look at: the averaged flow, if there is one."""
        return self.flow if self.average is None else cast(Flow, self.average.module)

    def leave(self) -> None:
        """Give the flow the parameters to be used: the best, else the averaged, else the last."""
        if self.best is not None:
            self.flow.load_state_dict(self.best)
        elif self.average is not None:
            self.flow.load_state_dict(self.average.module.state_dict())
