"""bfloat16 stays inside the conditioners: points, log-determinants and gradients keep float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowlib.bijection import Inverse
from flowlib.models import MODELS
from flowlib.nets import MLP, Conditioner, ConvNet
from tests.flowlib.test_models import CASES, Case

HALF = torch.bfloat16
# the network inside FFJORD is a velocity, which is integrated in full precision
CONDITIONED = [(name, size) for name, size in CASES if name not in ("linear", "planar", "radial", "ffjord")]


def conditioners(module: nn.Module) -> list[Conditioner]:
    return [inner for inner in module.modules() if isinstance(inner, Conditioner)]


def set_dtype(module: nn.Module, dtype: torch.dtype | None) -> None:
    for net in conditioners(module):
        net.autocast_dtype = dtype


@pytest.fixture(params=CONDITIONED, ids="-".join)
def case(request) -> Case:
    return Case(*request.param, torch.float32, "cpu")


@pytest.mark.parametrize("name", MODELS)
def test_models_with_networks_have_conditioners(name):
    assert bool(conditioners(MODELS[name]())) == (name in {name for name, _ in CONDITIONED} | {"ffjord"})


def test_the_networks_compute_in_bfloat16_and_everything_else_in_float32(case):
    dtypes: dict[str, set[torch.dtype]] = {"network": set(), "conditioner": set(), "layer": set()}

    def note(kind):
        def hook(module, arguments, output):
            dtypes[kind].update(value.dtype for value in (output if isinstance(output, tuple) else [output]))

        return hook

    # the conditioner at work: solve and extend ask its layers without calling it
    called: list[nn.Module] = []

    def inside(module, arguments, output):
        if called:
            note("network")(module, arguments, output)

    for layer in case.flow.bijection:
        layer.register_forward_hook(note("layer"))
    for net in conditioners(case.flow):
        net.register_forward_pre_hook(lambda module, _: called.append(module))
        net.register_forward_hook(lambda *_: called.clear())
        net.register_forward_hook(note("conditioner"))
        for inner in net.modules():
            if isinstance(inner, (nn.Linear, nn.Conv2d)):
                inner.register_forward_hook(inside)
    set_dtype(case.flow, HALF)
    # MAF calls its networks in one of these directions, IAF in the other
    z, context = case.latents(4), case.context(4)
    x, log_det = case.flow.bijection(z, context)
    log_p = case.flow.log_prob(x.detach(), context)
    log_p.sum().backward()
    assert dtypes == {"network": {HALF}, "conditioner": {torch.float32}, "layer": {torch.float32}}
    assert {x.dtype, log_det.dtype, log_p.dtype} == {torch.float32}
    for name, parameter in case.flow.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


def test_log_prob_drifts_little(case):
    # IAF's density is MADE.solve, which is no call of the network and stays in full precision
    least = 0 if type(case.flow.bijection.layers[0]) is Inverse else 1e-3
    assert least <= drift(case) <= 2


def drift(case: Case) -> float:
    """How far bfloat16 moves log_prob, the mean over samples, in units of 2⁻⁸ of its two parts' sizes.

    A relative error of 2⁻⁸ in every latent moves the base's part by that much of the latents' squares; one
    of that size in every log-scale moves the log-determinant by that much for each entry.
    """
    context = case.context(256)
    x = case.flow.sample(256, context, case.generator)

    def log_prob(dtype: torch.dtype | None) -> torch.Tensor:
        set_dtype(case.flow, dtype)
        torch.manual_seed(0)  # VFlow draws
        return case.flow.log_prob(x, context).detach()

    exact, rounded = log_prob(None), log_prob(HALF)
    assert torch.equal(log_prob(None), exact)
    torch.manual_seed(0)
    z = case.flow.encode(x, context).detach().flatten(1)
    sizes = z.shape[1] + z.square().sum(1)
    return float(((rounded - exact).abs() / sizes).mean()) * 2**8


@pytest.mark.parametrize("net", [MLP(3, 4), ConvNet(3, 4)], ids=["MLP", "ConvNet"])
def test_off_means_the_network_as_it_is_and_float64_never_changes(net):
    for parameter in net.parameters():
        parameter.data.normal_()
    z = torch.randn(2, 3) if isinstance(net, MLP) else torch.randn(2, 3, 4, 4)
    assert net.autocast_dtype is None
    assert torch.equal(net(z), net.compute(z))
    net.autocast_dtype = HALF
    assert not torch.equal(net(z), net.compute(z))
    net.double()
    assert torch.equal(net(z.double()), net.compute(z.double()))


def test_a_conditioner_compiles_without_a_break():
    net = MLP(3, 4)
    net.layers[-1].weight.data.normal_()
    compiled, z = torch.compile(net, fullgraph=True, backend="eager"), torch.randn(2, 3)
    for dtype in (None, HALF):
        net.autocast_dtype = dtype
        assert torch.equal(compiled(z), net(z))


def test_a_class_of_ones_own_must_say_what_it_computes():
    class Mine(Conditioner):
        pass

    with pytest.raises(NotImplementedError, match=r"Mine must define compute\(z, context\), its network"):
        Mine()(torch.ones(1, 2))
