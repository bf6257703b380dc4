"""Which layer was the first to give a number that is not finite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flowlib.bijection import Compose
from flowlib.flow import Flow
from flowlib.train.batches import Batch


@torch.no_grad()
def first_to_blame(
    flow: Flow, batch: Batch, inverse: bool, log_density: Callable[[Tensor], Tensor], name: str
) -> str:
    """Send the batch through the layers one by one, then to the density at their end."""
    points, context = batch
    layers = list(enumerate(flow.bijection if isinstance(flow.bijection, Compose) else [flow.bijection]))
    for k, layer in reversed(layers) if inverse else layers:
        points, log_det = (layer.inverse if inverse else layer)(points, context)
        bad = ~(points.flatten(1).isfinite().all(1) & log_det.isfinite())
        if bad.any():
            way = "inverse" if inverse else "forward"
            return (
                f"Layer {k} ({type(layer).__name__}) is the first whose {way} is not finite, in "
                f"{int(bad.sum())} of {len(bad)} points. "
            )
    bad = ~log_density(points).isfinite()
    if bad.any():
        return f"Every layer is finite, but {name} is not, in {int(bad.sum())} of {len(bad)} points. "
    return ""
