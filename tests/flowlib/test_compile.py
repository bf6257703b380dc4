"""torch.compile takes every row of MODELS whole: a graph break, which costs most of its gain, fails.

The backend is ``eager``: it traces what every backend traces, in full, and then runs it as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch

from flowlib.models import MODELS

# a graph holds all steps of a root or of a solver, and those of each layer anew: few show what many would
SMALL = {"flowpp": {"layers": 1}, "glow": {"layers": 1}, "wavelet": {"layers": 1}, "ffjord": {"steps": 2}}


@pytest.fixture(params=MODELS)
def flow(request):
    """A row with all parameters moved, so that nothing is the identity."""
    torch._dynamo.reset()
    build = MODELS[request.param]
    two = {"layers": 2} if "layers" in inspect.signature(build).parameters else {}
    flow = build(**SMALL.get(request.param, two)).double()
    for parameter in flow.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, dtype=torch.float64)
    return flow


def seeded(function: Callable) -> torch.Tensor:
    torch.manual_seed(1)
    return function()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # raised inside torch's tracer
def test_log_prob_compiles_without_a_break_and_learns_the_same(flow):
    x = flow.sample(5)
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)
    results = []
    for call in (compiled, flow.log_prob):
        log_p = seeded(lambda call=call: call(x))
        results.append((log_p, *torch.autograd.grad(log_p.sum(), list(flow.parameters()))))
    for value, expected in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_sampling_compiles_without_a_break(flow):
    compiled = torch.compile(flow.sample, backend="eager", fullgraph=True)
    torch.testing.assert_close(seeded(lambda: compiled(5)), seeded(lambda: flow.sample(5)))
