"""What a GPU does differently, shown without one.

A convolution on a GPU keeps ten bits of mantissa unless told otherwise (TF32), so none may touch a point or
a log-determinant. And a GPU runs ahead of Python, so a training step may neither look at a value nor make
tensors on the CPU: torch's ``meta`` device, which has no values, takes the GPU's place.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowlib.bases import StandardNormal
from flowlib.flow import Flow
from flowlib.layers.dequantize import Dequantize, Logit, VariationalDequantize
from flowlib.layers.ffjord import FFJORD, RungeKutta, Velocity
from flowlib.layers.glow import Convolution1x1
from flowlib.models import MODELS
from flowlib.nets import Conditioner
from tests.flowlib.randomised import randomised


def dequantised(layer: Dequantize) -> Flow:
    inner = MODELS["realnvp"](event_shape=4, layers=1, hidden=(4,))
    return Flow([*inner.bijection, Logit(0.05), layer], inner.base)


NOT_IN_MODELS = {
    "free matrices": lambda: MODELS["glow"](layers=1, scales=1, hidden=(4,), mix=Convolution1x1),
    "dequantised": lambda: dequantised(Dequantize(4)),
    "variational": lambda: dequantised(VariationalDequantize(4, 4, layers=2, hidden=(4,))),
    "estimated": lambda: Flow(FFJORD(Velocity(2), "rademacher", RungeKutta(2)), StandardNormal(2)),
}
FLOWS = {**MODELS, **NOT_IN_MODELS}
every_flow = pytest.mark.parametrize("name", FLOWS)


class TF32(TorchDispatchMode):
    """Rounds what goes into a convolution to ten bits of mantissa, except inside the conditioners."""

    inside = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        if "convolution" in str(operation) and not self.inside:
            arguments = [rounded(value) if isinstance(value, torch.Tensor) else value for value in arguments]
        return operation(*arguments, **(keywords or {}))


def rounded(value: torch.Tensor) -> torch.Tensor:
    bits = value.view(torch.int32)
    return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


class OnlyOn(TorchDispatchMode):
    """Refuses to make a tensor on any other device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        result = operation(*arguments, **(keywords or {}))
        made = {value.device.type for value in tree_leaves(result) if isinstance(value, torch.Tensor)}
        assert made <= {self.device}, f"{operation} made a tensor on {made}."
        return result


def test_tf32_is_as_users_have_it():
    assert torch.backends.cudnn.allow_tf32


def test_the_emulation_rounds_as_tf32_does():
    one, tick = torch.ones(()), 2.0**-10
    assert [rounded(one + part * tick).item() - 1 for part in (0.49, 0.51, 1.2)] == [0, tick, tick]


@every_flow
def test_no_point_and_no_log_det_passes_through_tf32(name):
    torch.manual_seed(0)
    flow, mode = randomised(FLOWS[name]()).eval(), TF32()
    for net in flow.modules():
        if isinstance(net, Conditioner):
            net.register_forward_pre_hook(lambda *_: setattr(mode, "inside", mode.inside + 1))
            net.register_forward_hook(lambda *_: setattr(mode, "inside", mode.inside - 1))

    def results() -> list[torch.Tensor]:
        torch.manual_seed(1)
        x, log_p = flow.sample_and_log_prob(3)
        return [x, log_p, flow.log_prob(x)]

    expected = results()
    with mode:
        for value, other in zip(results(), expected, strict=True):
            assert torch.equal(value, other)


# planar's root, which training on data does not need, is looked at until it has converged
@pytest.mark.parametrize("name", sorted(FLOWS.keys() - {"planar"}))
def test_a_training_step_looks_at_no_value_and_makes_nothing_on_the_cpu(name):
    flow = FLOWS[name]()
    x = torch.zeros(8, *flow.event_shape)
    flow(x)  # actnorm starts
    flow, x = flow.to("meta"), x.to("meta")
    with OnlyOn("meta"):  # the layers alone: autocast, which the flow asks, does not know this device
        z, log_det = flow.bijection.inverse(x)
        log_p = flow.base.log_prob(z) + log_det
        log_p.mean().backward()
    assert log_p.shape == (8,)


def test_levels_out_of_range_make_a_density_nan_where_nothing_looks():
    flow = Flow([Logit(0.05), Dequantize(4)], StandardNormal(2))
    x = torch.tensor([[0.0, 3.0], [0.0, 0.5], [4.0, 0.0]])
    alone = torch.func.vmap(lambda row: flow(row[None])[0], randomness="different")
    assert alone(x).isnan().tolist() == [False, True, True]
    compiled = torch.compile(flow, backend="eager", fullgraph=True)
    assert compiled(x).isnan().tolist() == [False, True, True]
    edges = Flow(Logit(), flow.base)
    assert torch.func.vmap(lambda row: edges(row[None])[0])(x[:2] / 3).isnan().tolist() == [True, True]


@pytest.mark.parametrize("name", NOT_IN_MODELS)
def test_what_models_lack_is_differentiated_point_by_point_and_exported_too(name):
    torch.manual_seed(0)
    flow = randomised(NOT_IN_MODELS[name]()).double().eval()
    x = flow.sample(5).requires_grad_()

    def score(point: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda point: flow.log_prob(point[None])[0])(point)

    scores = torch.func.vmap(score, randomness="different")(x.detach())
    assert scores.isfinite().all()
    if flow.is_exact:
        expected = torch.autograd.grad(flow.log_prob(x).sum(), x)[0]
        torch.testing.assert_close(scores, expected)
    if name == "estimated":  # torch cannot export a directional derivative with a size that it does not know
        return
    sizes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(flow, (x.detach(),), dynamic_shapes=sizes).module()
    for points in (x[:2].detach(), x.detach()[[0] * 7]):
        torch.manual_seed(1)
        log_p = exported(points)
        torch.manual_seed(1)
        torch.testing.assert_close(log_p, flow(points))
