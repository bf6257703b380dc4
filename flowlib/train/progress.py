"""The progress bar: loss in nats or in bits per dimension, and the time left."""

from __future__ import annotations

import math
from typing import Any

from flowlib.flow import Flow
from flowlib.layers.dequantize import levels_of


class Bar:
    """A bar of tqdm, or nothing where tqdm is not installed."""

    def __init__(self, flow: Flow, steps: int, start: int) -> None:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            self.bar: Any = None
            return
        self.bar = tqdm(total=steps, initial=start)
        # only the likelihood of integers counts in bits: a density's depends on the unit of its points
        integers = levels_of(flow) is not None
        self.unit = "bits per dimension" if integers else "nats"
        self.nats = flow.event_shape.numel() * math.log(2) if integers else 1.0

    def step(self, loss: float) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss / self.nats:.3f} {self.unit}", refresh=False)
            self.bar.update()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
