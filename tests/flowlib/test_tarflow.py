"""TarFlow's blocks: what hears what, the three ways to generate, guidance, and denoising."""

from __future__ import annotations

import pytest
import torch

from flowlib import check
from flowlib.bases import StandardNormal
from flowlib.flow import Flow
from flowlib.layers.coupling import Scale
from flowlib.layers.tarflow import CausalTransformer, TarFlowBlock, denoise
from tests.flowlib.randomised import randomised

SHAPE, T = (2, 4, 6), 6  # six patches of eight numbers


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def block(flip: bool = False, features: int = 0, guidance: float = 0.0) -> TarFlowBlock:
    made = randomised(TarFlowBlock(SHAPE, 2, (8, 8), 2, features, flip), size=2.0)
    made.guidance = guidance
    return made


def test_each_output_hears_its_token_and_those_before():
    net = randomised(CausalTransformer(5, 3, 2, hidden=(8, 8), heads=2))
    heard = torch.autograd.functional.jacobian(lambda x: net(x[None])[0], torch.randn(5, 3))
    assert torch.equal(heard.abs().sum((1, 3)) != 0, torch.ones(5, 5).tril() != 0)


def test_a_sequence_may_come_in_pieces():
    net, context = randomised(CausalTransformer(5, 3, 2, hidden=(8, 8), heads=2, context_features=4)), None
    tokens, context = torch.randn(7, 5, 3), torch.randn(7, 4)
    first, past = net.extend(tokens[:, :2], context, [])
    second, past = net.extend(tokens[:, 2:3], context, past)
    third, past = net.extend(tokens[:, 3:], context, past)
    torch.testing.assert_close(torch.cat([first, second, third], 1), net(tokens, context))
    assert [keys.shape[2] for keys, _ in past] == [5, 5]


@pytest.mark.parametrize("flip", [False, True])
def test_patches_are_cut_row_by_row_and_put_back(flip):
    image = torch.arange(48.0).reshape(1, 1, 6, 8)
    layer = TarFlowBlock((1, 6, 8), hidden=(4,), flip=flip)
    tokens = layer.patches(image)
    assert tokens[0, -1 if flip else 0].tolist() == [0, 1, 8, 9]
    assert tokens[0, -2 if flip else 1].tolist() == [2, 3, 10, 11]
    assert tokens[0, 0 if flip else -1].tolist() == [38, 39, 46, 47]
    assert torch.equal(layer.image(tokens), image)


@pytest.mark.parametrize("flip", [False, True])
def test_the_block_is_the_papers_formula(flip):
    layer, z = block(flip), torch.randn(5, *SHAPE)
    x, log_det = layer(z)
    tokens, latents, expected = layer.patches(x), layer.patches(z), torch.zeros(5)
    assert torch.equal(tokens[:, 0], latents[:, 0])
    for i in range(1, T):  # one whole pass for each patch, without a cache
        raw = layer.net(tokens[:, :i])[:, -1]
        alpha, mu = 2 * torch.tanh(raw[:, :8] / 2), raw[:, 8:]
        torch.testing.assert_close(tokens[:, i], latents[:, i] * alpha.exp() + mu)
        expected = expected + alpha.sum(1)
    torch.testing.assert_close(log_det, expected)
    jacobian = check.jacobian(lambda z: layer.patches(layer(layer.image(z))[0]), latents)
    assert torch.equal(jacobian.triu(1), torch.zeros_like(jacobian))


@pytest.mark.parametrize(("features", "guidance"), [(0, 0.0), (3, 0.0), (3, 1.5)])
def test_jacobi_knows_one_more_patch_after_each_pass_and_ends_with_all(features, guidance):
    layer, z = block(True, features, guidance), torch.randn(5, *SHAPE)
    context = torch.randn(5, features) if features else None
    x, log_det = layer(z, context)
    found, found_log_det, passes = layer.jacobi(z, context)
    torch.testing.assert_close((found, found_log_det), (x, log_det))
    assert passes == T - 1
    assert layer.jacobi(z, context, tolerance=torch.inf)[2] == 1
    coarse, _, fewer = layer.jacobi(z, context, tolerance=1.0)
    known = layer.patches(coarse - x)[:, : fewer + 1]
    torch.testing.assert_close(known, torch.zeros_like(known))
    assert layer.jacobi(z[:0], None if context is None else context[:0])[0].shape == (0, *SHAPE)


def test_a_guided_block_is_a_block_with_an_exact_log_det():
    layer, z, context = block(features=3, guidance=1.5), torch.randn(5, *SHAPE), torch.randn(5, 3)
    assert check.log_det_error(layer, z, context) < 1e-10
    assert check.round_trip_error(layer, z, context) < 1e-10
    x = layer.patches(z)
    told, untold = layer.net(x[:, :-1], context), layer.net(x[:, :-1], 0 * context)
    alpha, mu = (2.5 * one - 1.5 * other for one, other in zip(parts(told), parts(untold), strict=True))
    expected = torch.cat([x[:, :1], (x[:, 1:] - mu) / alpha.exp()], 1)
    torch.testing.assert_close(layer.inverse(z, context)[0], layer.image(expected))


def parts(raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return 2 * torch.tanh(raw[..., :8] / 2), raw[..., 8:]


def test_guidance_changes_nothing_for_a_context_of_zeros():
    layer, z = block(features=3), torch.randn(5, *SHAPE)
    plain = layer(z, torch.zeros(5, 3))
    layer.guidance = 2.0
    torch.testing.assert_close(layer(z, torch.zeros(5, 3)), plain)


def test_denoising_gives_the_mean_of_a_gaussian_given_its_noisy_value():
    flow = Flow(Scale((2,)), StandardNormal(2))
    flow.bijection.log_scale.data += torch.tensor([0.2, 0.7])
    variance, y = torch.exp(2 * flow.bijection.log_scale.detach()), torch.randn(5, 2)
    shrunk = (variance - 0.25) / variance * y  # x ~ N(0, variance - σ²)
    torch.testing.assert_close(denoise(flow, y, 0.5), shrunk)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"event_shape": (1, 4, 4), "patch": 3}, r"patch must cut \(1, 4, 4\) into two or more squares"),
        ({"event_shape": (1, 4, 4), "patch": 4}, "two or more squares, and came as 4"),
        ({"event_shape": (1, 4, 4), "patch": 0}, "patch must be made of positive whole numbers"),
        ({"event_shape": (1, 4, 4), "hidden": (6,)}, "heads must divide it"),
        ({"event_shape": (1, 4, 4), "hidden": (8, 4)}, "one width for all residual blocks"),
    ],
)
def test_sizes_that_no_block_can_have_are_refused(sizes, says):
    with pytest.raises(ValueError, match=says):
        TarFlowBlock(**sizes)
