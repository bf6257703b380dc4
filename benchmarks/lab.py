"""What the lab's Glow for a CPU comes to: ``python -m benchmarks.lab``, four minutes on one core.

The lab's own model, images and settings at its scale ``tiny``, and three times as many steps beside them,
each from three seeds. One thread, float64 as in the lab, whose page prints what seed 0 gives here.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiment import publish
from flowlib import Flow, bits_per_dim, fit
from flowlib.data import load_dataset
from flowlib.train.flow_for import flow_for

SIZES: dict[str, Any] = {"layers": 4, "scales": 2, "hidden": (24,)}
TRAINING: dict[str, Any] = {"steps": 260, "batch_size": 48, "lr": 1e-2, "ema": 0.98}
BUDGETS, SEEDS, LOOKS = (260, 780), range(3), 20


@torch.no_grad()
def bits(flow: Flow, images: Tensor, labels: Tensor) -> float:
    """Bits per dimension, with the same dequantisation noise at every call, as the lab measures them."""
    torch.manual_seed(1)
    parts = zip(images.split(256), labels.split(256), strict=True)
    log_p = torch.cat([flow.log_prob(x, y) for x, y in parts])
    return bits_per_dim(log_p, flow.event_shape).mean().item()


def run() -> dict[str, Any]:
    """Train with every budget and seed, and measure on all three parts of the digits."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    data = load_dataset("digits")
    data = data.hold_out(-(-len(data.train) // 10))
    parts: dict[str, tuple[Any, Any]] = {
        "train": (data.train, data.train_labels),
        "held_out": (data.validation, data.validation_labels),
        "test": (data.test, data.test_labels),
    }
    points = {name: (x.double(), torch.eye(10)[labels]) for name, (x, labels) in parts.items()}
    runs = []
    for steps in BUDGETS:
        for seed in SEEDS:
            torch.manual_seed(seed)
            flow = flow_for(data, "glow", 10, **SIZES).eval()
            untrained = bits(flow, *points["test"])
            began = time.process_time()
            fit(
                flow,
                points["train"][0],
                context=points["train"][1],
                **(TRAINING | {"steps": steps}),
                seed=seed,
                validation=points["held_out"][0],
                validation_context=points["held_out"][1],
                validate_every=steps // LOOKS,
                progress=False,
            )
            seconds = time.process_time() - began
            scores = {name: bits(flow, *part) for name, part in points.items()}
            runs.append({"steps": steps, "seed": seed, "seconds": seconds, "untrained": untrained, **scores})
            print(f"{steps} steps, seed {seed}: {scores['test']:.3f} bits, {seconds:.0f} s", flush=True)
    return {
        "sizes": SIZES,
        "training": TRAINING,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "runs": runs,
    }


if __name__ == "__main__":
    publish("lab", __doc__, run)
