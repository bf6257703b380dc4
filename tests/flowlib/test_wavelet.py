"""The Haar transform against its matrix, and Wavelet Flow's scales apart and together."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from flowlib import check
from flowlib.bases import StandardNormal, UniformBox
from flowlib.layers.wavelet import Haar, WaveletFlow
from flowlib.models import wavelet
from flowlib.train import fit
from tests.flowlib.randomised import randomised

EVENT, SCALES = (2, 8, 8), 3  # down to one pixel


@pytest.fixture(autouse=True)
def _double(same_start):
    torch.set_default_dtype(torch.float64)


def pyramid(context_features: int = 0) -> WaveletFlow:
    return randomised(WaveletFlow(EVENT, SCALES, layers=2, hidden=(8,), context_features=context_features))


def log_normal(values: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Normal(0.0, 1.0).log_prob(values).flatten(1).sum(1)


# --- the Haar transform ---------------------------------------------------------------------


def test_haar_is_the_papers_matrix_on_every_block():
    matrix = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    z = torch.randn(2, 3, 4, 6)
    x, log_det = Haar()(z)
    assert x.shape == (2, 12, 2, 3)
    for c in range(3):
        for i in range(2):
            for j in range(3):
                block = z[:, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(2, 4)
                torch.testing.assert_close(x[:, c::3, i, j], block @ matrix.T, atol=1e-14, rtol=0)
    assert torch.equal(log_det, torch.zeros(2))
    assert check.round_trip_error(Haar(), z) < 1e-14


def test_haar_is_orthonormal():
    z = torch.randn(1, 2, 4, 2)
    for direction, point in ((Haar(), z), (Haar().inverse, z.reshape(1, 4, 2, 2))):
        dense = check.jacobian(lambda p, go=direction: go(p)[0], point)[0]
        torch.testing.assert_close(dense @ dense.T, torch.eye(16), atol=1e-14, rtol=0)


def test_whole_numbers_come_back_exactly():
    z = torch.randint(256, (5, 1, 8, 8)).float()
    assert torch.equal(Haar().inverse(Haar()(z)[0])[0], z)


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches(n):
    z = torch.randn(n, 1, 2, 2)
    assert Haar()(z)[0].shape == (n, 4, 1, 1)
    assert Haar().inverse(Haar()(z)[0])[0].shape == z.shape


# --- the pyramid ----------------------------------------------------------------------------


def test_a_new_flow_is_the_identity():
    x = torch.randn(3, *EVENT)
    torch.testing.assert_close(WaveletFlow(EVENT, SCALES).encode(x), x, atol=1e-13, rtol=0)


def test_coarse_images_are_scaled_block_means():
    flow, x = pyramid(), torch.randn(4, *EVENT)
    for i in range(SCALES + 1):
        size = 2 ** (SCALES - i)
        expected = size * nn.functional.avg_pool2d(x, size)
        torch.testing.assert_close(flow.coarse(x, i), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("context_features", [0, 3])
def test_the_scales_sum_to_the_whole(context_features):
    flow, x = pyramid(context_features), torch.randn(5, *EVENT)
    context = torch.randn(5, 3) if context_features else None
    terms = [flow.scale_log_prob(x, i, context) for i in range(SCALES + 1)]
    torch.testing.assert_close(sum(terms), flow.log_prob(x, context), atol=1e-11, rtol=0)


def test_the_terms_keep_their_precision_under_autocast():
    flow = pyramid().float()
    x = flow.sample(3)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = [flow.scale_log_prob(x, i) for i in range(SCALES + 1)]
    for i, term in enumerate(rounded):
        assert torch.equal(term, flow.scale_log_prob(x, i))


def test_each_term_is_the_papers_conditional_density():
    """log p(d | a) by the change of variables of the details alone, with a dense Jacobian."""
    flow, x = pyramid(), torch.randn(1, *EVENT)
    for i in (1, 2):
        layers = list(flow.scale(i).bijection)[1:-1]
        average, details = Haar()(flow.coarse(x, i))[0].split([2, 6], 1)

        def to_noise(d: torch.Tensor, average=average, layers=layers) -> torch.Tensor:
            bands = torch.cat([average, d], 1)
            for layer in reversed(layers):
                bands = layer.inverse(bands)[0]
            assert torch.equal(bands[:, :2], average)  # what is given never moves
            return bands[:, 2:]

        log_det = torch.linalg.slogdet(check.jacobian(to_noise, details))[1]
        expected = log_normal(to_noise(details)) + log_det
        torch.testing.assert_close(flow.scale_log_prob(x, i), expected, atol=1e-10, rtol=0)


def test_the_coarsest_scale_is_a_flow_of_the_coarsest_image():
    flow, x = pyramid(), torch.randn(1, *EVENT)
    coarsest = flow.coarse(x, 0)
    dense = check.jacobian(lambda p: flow.scale(0).encode(p), coarsest)
    expected = log_normal(flow.scale(0).encode(coarsest)) + torch.linalg.slogdet(dense)[1]
    torch.testing.assert_close(flow.scale_log_prob(x, 0), expected, atol=1e-11, rtol=0)


def test_one_entry_alone_is_a_gaussian_that_sees_the_context():
    flow = randomised(WaveletFlow((1, 4, 4), scales=2, layers=2, hidden=(4,), context_features=3))
    x, context = torch.randn(6, 1, 4, 4), torch.randn(6, 3)
    (affine,) = flow.scale(0).bijection
    mean = affine.shift.flatten() + context @ affine.weight.flatten()
    normal = torch.distributions.Normal(mean, affine.log_scale.exp().flatten())
    expected = normal.log_prob(x.sum((1, 2, 3)) / 4)
    torch.testing.assert_close(flow.scale_log_prob(x, 0, context), expected, atol=1e-12, rtol=0)


def test_the_details_depend_on_the_average():
    flow, x = pyramid(), torch.randn(3, *EVENT)
    brighter = x + 1  # other averages, the same details
    for i in range(1, SCALES + 1):
        assert (flow.scale_log_prob(x, i) != flow.scale_log_prob(brighter, i)).all()


# --- training apart and together --------------------------------------------------------------


def test_scales_share_no_parameter_and_one_term_trains_one_scale():
    flow, x = pyramid(), torch.randn(4, *EVENT)
    everything = dict(flow.named_parameters())
    owned = [{id(p) for p in flow.scale(i).parameters()} for i in range(SCALES + 1)]
    assert sum(len(ids) for ids in owned) == len(set.union(*owned)) == len(everything)
    together = torch.autograd.grad(flow.log_prob(x).sum(), list(everything.values()))
    whole = dict(zip(everything, together, strict=True))
    for i in range(SCALES + 1):
        # as a term of the sum, and as a flow of its own, on small images
        small = flow.coarse(x, i)
        for term in (lambda i=i: flow.scale_log_prob(x, i), lambda i=i, s=small: flow.scale(i).log_prob(s)):
            flow.zero_grad()
            term().sum().backward()
            for name, parameter in everything.items():
                if id(parameter) in owned[i]:
                    torch.testing.assert_close(parameter.grad, whole[name], atol=1e-10, rtol=1e-9)
                else:
                    assert parameter.grad is None, name


def test_fitting_a_scale_improves_its_term_and_leaves_the_others():
    images = 3 + torch.randn(200, *EVENT).cumsum(3) * 0.3
    flow = WaveletFlow(EVENT, 2, layers=2, hidden=(8,))
    before = [flow.scale_log_prob(images, i).mean().item() for i in range(3)]
    fit(flow.scale(1), flow.coarse(images, 1), steps=60, lr=1e-2, batch_size=64, progress=False)
    after = [flow.scale_log_prob(images, i).mean().item() for i in range(3)]
    assert after[1] > before[1] + 5
    assert (after[0], after[2]) == (before[0], before[2])


# --- from coarse to fine ----------------------------------------------------------------------


@pytest.mark.parametrize("start", range(SCALES + 1))
def test_a_refined_image_has_the_coarse_one_as_its_average(start):
    flow = pyramid()
    coarse = flow.coarse(flow.sample(4), start)
    fine = flow.refine(coarse)
    assert fine.shape == (4, *EVENT)
    torch.testing.assert_close(flow.coarse(fine, start), coarse, atol=1e-12, rtol=0)
    if start < SCALES:
        assert not torch.equal(flow.refine(coarse), fine)


def test_refining_is_sampling_with_the_coarse_latents_given():
    flow, context = pyramid(context_features=3), torch.randn(4, 3)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(4, 2, 1, 1)
    coarse = flow.scale(0).decode(z, context)
    fine = flow.refine(coarse, context, generator)
    generator.manual_seed(1)
    for shape in flow.shapes[1:]:
        noise = torch.randn(4, *shape, generator=generator)
        z = Haar().inverse(torch.cat([z, Haar()(noise)[0][:, 2:]], 1))[0]
    torch.testing.assert_close(fine, flow.decode(z, context), atol=1e-11, rtol=0)


def test_refined_details_follow_their_density():
    """With a network that is constant, p(d | a) is a known normal."""
    flow = WaveletFlow((1, 2, 2), scales=1, layers=2, hidden=(4,)).eval()
    coupling = list(flow.scale(1).bijection)[1]  # the first moves d² alone
    with torch.no_grad():
        coupling.conditioner.last[1].bias[:] = torch.tensor([math.atanh(0.25) * 2, 1.5])
    fine = flow.refine(torch.full((20000, 1, 1, 1), 7.0), generator=torch.Generator().manual_seed(0))
    bands = Haar()(fine)[0].flatten(1)
    error = 5 / 20000**0.5
    assert (bands[:, 0] - 7).abs().max() < 1e-12
    torch.testing.assert_close(bands.mean(0)[1:], torch.tensor([0, 1.5, 0]), atol=2 * error, rtol=0)
    torch.testing.assert_close(bands.std(0)[1:], torch.tensor([1, math.exp(0.5), 1]), atol=error, rtol=0)


# --- what is refused --------------------------------------------------------------------------


def test_bad_sizes_are_refused_with_a_sentence():
    for shape in ((1, 6, 8), (1, 8, 6)):
        with pytest.raises(ValueError, match=r"that are multiples of 4; it came as"):
            wavelet(shape, scales=2)
    flow, x = pyramid(), torch.randn(2, *EVENT)
    for i in (-1, 4, 1.0):
        for call in (flow.scale, lambda i: flow.coarse(x, i), lambda i: flow.scale_log_prob(x, i)):
            with pytest.raises(ValueError, match="must be a whole number from 0 to 3 and came as"):
                call(i)


def test_bad_coarse_images_are_refused_with_a_sentence():
    flow = pyramid()
    for shape in ((2, 3, 3), (5, 2, 2)):
        with pytest.raises(
            ValueError, match=r"coarse holds images of shape .*; a scale has one of \[\(2, 1, 1\)"
        ):
            flow.refine(torch.zeros(1, *shape))
    with pytest.raises(ValueError, match="coarse holds NaN or infinity"):
        flow.refine(torch.full((1, 2, 2, 2), math.nan))
    with pytest.raises(TypeError, match=r"coarse is torch\.float32 and the flow is torch\.float64"):
        flow.refine(torch.zeros(1, 2, 2, 2).float())


def test_the_row_takes_a_standard_normal_and_no_other_base():
    base = StandardNormal((1, 4, 4))
    assert wavelet(base=base).base is base
    with pytest.raises(ValueError, match=r"needs a base of the class StandardNormal, .* came as UniformBox"):
        wavelet(base=UniformBox((1, 4, 4)))
