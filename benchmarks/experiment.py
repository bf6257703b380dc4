"""What the experiments share: a file with its command and machine, and models that need no training."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import describe
from flowlib import Flow, bits_per_dim


def publish(name: str, text: str | None, run: Callable[[], dict[str, Any]]) -> None:
    """Parse the command line of ``benchmarks.NAME``, run the experiment and write its file.

    Args:
        name: of the module, and of its file among the results.
        text: what ``--help`` says, the module's docstring.
        run: trains, and returns what the lecture draws.
    """
    command = f"python -m benchmarks.{name}"
    parser = argparse.ArgumentParser(prog=command, description=text)
    usual = Path(__file__).parent / "results" / f"{name}.json"
    parser.add_argument("--out", type=Path, default=usual, help="the JSON file to write")
    out = parser.parse_args().out
    found = run()
    content = {"command": command, "machine": describe(), **found}
    out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {out}")


def baselines(images: Tensor, new_images: Tensor, levels: int = 17) -> dict[str, float]:
    """Bits per dimension of new images under three models that need no training."""
    here, new, d = images.flatten(1).double(), new_images.flatten(1).double(), images[0].numel()
    shares = torch.stack([(here == value).sum(0) for value in range(levels)]).double() + 1.0  # none is zero
    log_P = (shares / shares.sum(0)).log().gather(0, new.long()).sum(1)
    torch.manual_seed(1)
    noisy = here + torch.rand(here.shape)
    gaussian = torch.distributions.MultivariateNormal(noisy.mean(0), noisy.T.cov())
    log_p = gaussian.log_prob(new + torch.rand(new.shape))
    return {
        "uniform": math.log2(levels),
        "full Gaussian": bits_per_dim(log_p.mean(), d).item(),
        "pixel histograms": bits_per_dim(log_P.mean(), d).item(),
    }


@torch.no_grad()
def bits(flow: Flow, x: Tensor, draws: int, context: Tensor | None = None) -> float:
    """Bits per dimension, a mean over the same draws of dequantisation noise at every call."""
    torch.manual_seed(1)
    return sum(bits_per_dim(flow.log_prob(x, context), 64).mean().item() for _ in range(draws)) / draws


__all__ = ["baselines", "bits", "publish"]
