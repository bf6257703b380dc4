"""bfloat16 where it does no harm: inside the conditioners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flowlib.flow import Flow
from flowlib.nets import Conditioner


@contextmanager
def conditioners_in_bfloat16(flow: Flow, wanted: bool) -> Iterator[None]:
    """Let every conditioner compute in bfloat16 until the end of the body."""
    conditioners = [module for module in flow.modules() if isinstance(module, Conditioner) and wanted]
    if wanted and not conditioners:
        raise ValueError(
            "bfloat16=True is for the networks inside a flow, and this flow has none; leave it out: the "
            "layers and their log-determinants need float32."
        )
    before = [conditioner.autocast_dtype for conditioner in conditioners]
    for conditioner in conditioners:
        conditioner.autocast_dtype = torch.bfloat16
    try:
        yield
    finally:
        for conditioner, dtype in zip(conditioners, before, strict=True):
            conditioner.autocast_dtype = dtype
