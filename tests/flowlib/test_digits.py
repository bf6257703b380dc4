"""Every row of MODELS learns: a few seconds on the digits, then test bits per dimension below a Gaussian's.

The Gaussian has the full covariance matrix of the dequantised training images, the best that two moments
can do. Each row states its budget and the margin in bits per dimension by which it must win.
"""

from __future__ import annotations

import functools
import inspect

import pytest
import torch

from flowlib import Compose, Flow, fit
from flowlib.dequantize import Dequantize, Logit, bits_per_dim
from flowlib.models import MODELS

pytest.importorskip("sklearn")
from flowlib.data import digits

WIDE, STEADY = {"hidden": (128,)}, 5e-3

# row: (keywords, steps, learning rate, margin)
BUDGETS: dict[str, tuple[dict, int, float, float]] = {
    "linear": ({}, 300, 3e-2, 0.35),  # a Gaussian too, of the logits: what the logit alone wins
    "planar": ({"layers": 4}, 80, 3e-2, 0.3),
    "radial": ({"layers": 4}, 150, 1e-2, 0.25),
    "nice": (WIDE, 150, 1e-2, 0.5),
    "realnvp": (WIDE, 100, STEADY, 0.5),
    "maf": (WIDE, 100, STEADY, 0.5),
    "iaf": (WIDE, 60, STEADY, 0.3),
    "spline": (WIDE, 60, STEADY, 0.6),
    "spline_ar": (WIDE, 60, STEADY, 0.6),
    "realnvp_multiscale": ({}, 60, 1e-2, 0.4),
    "glow": ({"hidden": (32,)}, 60, STEADY, 0.4),
    "wavelet": ({"layers": 4, "hidden": (32,)}, 60, STEADY, 0.3),
    "flowpp": ({"hidden": (64,)}, 100, 1e-2, 0.5),
}
# a planar or radial layer bends the space along one line or around one point: what they can do for 64
# correlated pixels shows after a linear layer that has taken the correlation away
AFTER_A_LINEAR_LAYER = ("planar", "radial")


@functools.cache
def pixels(split: str) -> torch.Tensor:
    return digits(split)[0].float()


@functools.cache
def gaussian() -> float:
    """Test bits per dimension of the Gaussian with the training images' mean and covariance."""
    torch.manual_seed(0)
    train = torch.cat([pixels("train") + torch.rand(pixels("train").shape) for _ in range(10)])
    train = train.flatten(1).double()
    fitted = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    test = (pixels("test") + torch.rand(pixels("test").shape)).flatten(1).double()
    return float(bits_per_dim(fitted.log_prob(test), 64).mean())


def test_every_row_has_a_budget():
    assert BUDGETS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", BUDGETS)
def test_a_few_seconds_of_training_beat_the_best_gaussian(name):
    keywords, steps, lr, margin = BUDGETS[name]
    shape = (1, 8, 8) if "scales" in inspect.signature(MODELS[name]).parameters else (64,)
    model = MODELS[name](event_shape=shape, **keywords)
    below = MODELS["linear"](64).bijection if name in AFTER_A_LINEAR_LAYER else []
    flow = Flow(Compose([*model.bijection, *below, Logit(0.05), Dequantize(17)]), model.base)
    fit(flow, pixels("train").reshape(-1, *shape), steps=steps, lr=lr, progress=False)
    with torch.no_grad():
        ours = bits_per_dim(flow.log_prob(pixels("test").reshape(-1, *shape)), 64).mean()
    assert ours < gaussian() - margin
