"""What torch puts around a flow changes nothing: every row of MODELS compiles, exports, maps and autocasts.

The compiler's backend is ``eager``: it traces what every backend traces, in full, and then runs it as it is.
A graph break, which costs most of its gain, fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch

from flowlib.flow import Flow
from flowlib.models import MODELS
from flowlib.nets import Conditioner
from tests.flowlib.test_models import DEVICES

# a graph holds all steps of a root or of a solver, and those of each layer anew: few show what many would
SMALL = {"flowpp": {"layers": 1}, "glow": {"layers": 1}, "wavelet": {"layers": 1}, "ffjord": {"steps": 2}}


@pytest.fixture(params=MODELS)
def flow(request) -> Flow:
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


def test_log_prob_exports_for_batches_of_any_size(flow):
    flow.eval()
    sizes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(flow, (flow.sample(5),), dynamic_shapes=sizes).module()
    for n in (2, 7):
        x = flow.sample(n)
        expected = seeded(lambda x=x: flow(x))
        torch.testing.assert_close(seeded(lambda x=x: exported(x)), expected, rtol=1e-9, atol=1e-11)


def test_the_score_of_each_point_by_vmap(flow):
    flow.eval()  # ActNorm starts from its first batch in training
    score = torch.func.grad(lambda point: flow.log_prob(point[None])[0])
    x = flow.sample(3)
    found = seeded(lambda: torch.func.vmap(score, randomness="same")(x))
    for point, mine in zip(x, found, strict=True):
        point = point[None].requires_grad_()
        (expected,) = torch.autograd.grad(seeded(lambda point=point: flow.log_prob(point)), point)
        torch.testing.assert_close(mine[None], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("own", [None, torch.bfloat16], ids=["full", "bfloat16"])
def test_autocast_around_a_flow_changes_nothing(flow, own, device):
    flow.to(device, torch.float32)
    for net in flow.modules():
        if isinstance(net, Conditioner):
            net.autocast_dtype = own  # which is asked for, and not by what surrounds the flow
    x = flow.sample(4)
    z = flow.encode(x)
    calls = [
        lambda: [flow(x), flow.log_prob(x), flow.encode(x), flow.decode(z)],
        lambda: [*flow.sample_and_log_prob(4), flow.as_distribution().sample((4,))],
        lambda: [value for step in flow.trajectory(z) for value in step],
    ]
    for call in calls:
        expected = seeded(call)
        with torch.autocast(device, torch.bfloat16):
            found = seeded(call)
        torch.testing.assert_close(found, expected)
