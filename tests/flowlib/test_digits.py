"""Every row of MODELS learns: a few seconds on the digits, then test bits per dimension below a Gaussian's.

The Gaussian has the full covariance matrix of the dequantised training images, the best that two moments
can do. Each row states its budget and the margin in bits per dimension by which it must win.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from flowlib import Compose, Flow, fit
from flowlib.data import load_dataset
from flowlib.layers.dequantize import bits_per_dim
from flowlib.models import MODELS
from flowlib.train.flow_for import flow_for, sizes_of

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
    "vflow": (WIDE, 60, STEADY, 0.4),
    "ffjord": ({"hidden": (64, 64), "steps": 4}, 200, 1e-2, 0.2),
    "tarflow": ({}, 60, STEADY, 0.2),
}
# a planar or radial layer bends the space along one line or around one point: what they can do for 64
# correlated pixels shows after a linear layer that has taken the correlation away
AFTER_A_LINEAR_LAYER = ("planar", "radial")


IMAGES = load_dataset("digits")
# the faster choice for the models that take either
VECTORS = replace(IMAGES, train=IMAGES.train.flatten(1), test=IMAGES.test.flatten(1))


@functools.cache
def gaussian() -> float:
    """Test bits per dimension of the Gaussian with the training images' mean and covariance."""
    torch.manual_seed(0)
    train = torch.cat([VECTORS.train + torch.rand(VECTORS.train.shape) for _ in range(10)]).double()
    fitted = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    test = (VECTORS.test + torch.rand(VECTORS.test.shape)).double()
    return float(bits_per_dim(fitted.log_prob(test), 64).mean())


def test_every_row_has_a_budget():
    assert BUDGETS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", BUDGETS)
def test_a_few_seconds_of_training_beat_the_best_gaussian(name):
    keywords, steps, lr, margin = BUDGETS[name]
    data = IMAGES if {"scales", "patch"} & set(sizes_of(name)) else VECTORS
    flow = flow_for(data, name, **keywords)
    if name in AFTER_A_LINEAR_LAYER:
        *layers, logit, dequantize = flow.bijection
        flow = Flow(Compose([*layers, *MODELS["linear"](64).bijection, logit, dequantize]), flow.base)
    fit(flow, data.train.float(), steps=steps, lr=lr, progress=False)
    with torch.no_grad():
        ours = bits_per_dim(flow.log_prob(data.test.float()), 64).mean()
    assert ours < gaussian() - margin
