"""The checks at the door of a training."""

from __future__ import annotations

import math
from typing import Any

from flowlib.flow import Flow


def check(flow: Flow, lr: float, clip: float | None, **whole: Any) -> None:
    """Refuse what is no flow, and numbers that make no training; ``whole`` must be whole and positive."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flow must be a flowlib.Flow and came as {type(flow).__name__}.")
    for name, value in whole.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more, and came as {value!r}.")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be a positive number and came as {lr!r}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a positive number, or None for no clipping, and came as {clip!r}.")
