"""Glow's layers and the multi-scale stacks, against the formulas of their papers in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from flowlib import check
from flowlib.bases import StandardNormal
from flowlib.bijection import Compose, Inverse
from flowlib.flow import Flow
from flowlib.layers.coupling import Permute
from flowlib.layers.glow import ActNorm, ChannelCoupling, Convolution1x1, ConvolutionLU
from flowlib.layers.multiscale import OnChannels, Squeeze
from flowlib.models import glow, realnvp_multiscale
from flowlib.nets import MLP

B, C, H, W = 6, 4, 2, 3
CONVOLUTIONS = [Convolution1x1, ConvolutionLU]


@pytest.fixture(autouse=True)
def _double(same_start):
    torch.set_default_dtype(torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    """The module with every parameter moved, so that nothing is the identity, in eval mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return module.eval()


def images() -> torch.Tensor:
    """Channels that differ in place and width."""
    widths = torch.tensor([0.1, 1.0, 5.0, 30.0])[:, None, None]
    return torch.randn(B, C, H, W) * widths + torch.tensor([3.0, -1.0, 100.0, 0.0])[:, None, None]


def assert_normalised(z: torch.Tensor, dims: tuple[int, ...]) -> None:
    assert z.mean(dims).abs().max() < 1e-12
    assert (z.var(dims, correction=0) - 1).abs().max() < 1e-12


# --- actnorm ----------------------------------------------------------------------------


def test_actnorm_is_the_papers_formula():
    layer, x = randomised(ActNorm(C)), images()
    s, b = torch.exp(-layer.log_scale), -layer.shift * torch.exp(-layer.log_scale)
    y = torch.stack([s[c] * x[:, c] + b[c] for c in range(C)], 1)
    z, log_det = layer.inverse(x)
    torch.testing.assert_close(z, y, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(log_det, H * W * s.abs().log().sum().expand(B))
    assert check.round_trip_error(layer, z) < 1e-12
    assert check.log_det_error(layer, z[:2]) < 1e-12


@pytest.mark.parametrize(("shape", "dims"), [(C, (0, 2, 3)), ((C, H, W), (0,))], ids=["channel", "entry"])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_first_batch_comes_out_with_mean_zero_and_variance_one(shape, dims, gradients):
    layer, x = ActNorm(shape), images()
    with torch.set_grad_enabled(gradients):
        assert_normalised(layer.inverse(x)[0], dims)
    # each later batch is data like any other
    assert torch.equal(layer.inverse(2 * x)[0], layer.eval().inverse(2 * x)[0])
    assert_normalised(layer.inverse(x)[0], dims)
    assert bool(layer.started)


def test_vectors_are_normalised_too():
    assert_normalised(ActNorm(5).inverse(3 * torch.randn(40, 5) - 7)[0], (0,))


def test_used_the_other_way_round_it_normalises_what_comes_out_there():
    layer, x = Inverse(ActNorm(C)), images()
    z, _ = layer.inverse(x)
    assert_normalised(z, (0, 2, 3))
    torch.testing.assert_close(layer(z)[0], x, atol=1e-12, rtol=1e-12)


def test_before_data_come_it_is_the_identity_and_eval_mode_never_starts_it():
    layer, x = ActNorm(C).eval(), images()
    for direction in (layer, layer.inverse):
        out, log_det = direction(x)
        assert torch.equal(out, x)
        assert torch.equal(log_det, torch.zeros(B))
    assert not layer.started
    assert_normalised(layer.train().inverse(x)[0], (0, 2, 3))


def test_sampling_and_empty_batches_do_not_count_as_data():
    flow, x = Flow(ActNorm(C), StandardNormal((C, H, W))), images()
    z = torch.randn(3, C, H, W)
    flow.sample(3)
    flow.log_prob(x[:0])
    assert torch.equal(flow.bijection.eval()(z)[0], z)
    flow.train()
    assert_normalised(flow.encode(x), (0, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_a_constant_channel_keeps_scale_one(dtype, value):
    x = images().to(dtype)
    x[:, 1] = value
    layer = ActNorm(C).to(dtype)
    z, log_det = layer.inverse(x)
    assert layer.log_scale[1] == 0
    assert (layer.log_scale[[0, 2, 3]] != 0).all()
    assert z[:, 1].abs().max() <= 4 * torch.finfo(dtype).eps * abs(value)
    assert log_det.isfinite().all()


def test_one_vector_is_a_batch_too():
    layer, x = ActNorm(3), torch.tensor([[1.0, -2.0, 0.0]])
    z, log_det = layer.inverse(x)
    assert torch.equal(z, torch.zeros(1, 3))
    assert torch.equal(log_det, torch.zeros(1))
    assert_normalised(ActNorm(C).inverse(images()[:1])[0], (0, 2, 3))  # one image has pixels


def test_a_large_mean_does_not_cost_the_variance_its_digits():
    x = torch.randn(100, 2, 4, 4).float() + 1e4
    z = ActNorm(2).float().inverse(x)[0].double()
    assert (z.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-4


def test_the_start_survives_saving_and_loading(tmp_path):
    layer, x = ActNorm(C), images()
    layer.inverse(x)
    torch.save(layer.state_dict(), tmp_path / "actnorm.pt")
    loaded = ActNorm(C).train()
    loaded.load_state_dict(torch.load(tmp_path / "actnorm.pt", weights_only=True))
    for one in (loaded, copy.deepcopy(loaded)):
        assert torch.equal(one.inverse(5 * x)[0], layer.inverse(5 * x)[0])
    fresh = ActNorm(C)
    fresh.load_state_dict(ActNorm(C).state_dict())  # never started, so it still will be
    assert_normalised(fresh.inverse(x)[0], (0, 2, 3))


def _rank(rank: int, store: str, results) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.manual_seed(7)
    x = torch.randn(10, 2, 2, 2, dtype=torch.float64) * 3 + 1
    layer = ActNorm(2).double()
    layer.inverse(x[:3] if rank == 0 else x[3:])
    results.put((rank, layer.shift.tolist(), layer.log_scale.tolist()))
    torch.distributed.destroy_process_group()


def test_all_ranks_start_alike_from_their_batches_together(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [context.Process(target=_rank, args=(r, str(tmp_path / "store"), results)) for r in range(2)]
    for process in ranks:
        process.start()
    first, second = sorted(results.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert first[1:] == second[1:]
    torch.manual_seed(7)
    whole = ActNorm(2)
    whole.inverse(torch.randn(10, 2, 2, 2) * 3 + 1)
    torch.testing.assert_close(torch.tensor(first[1:]), torch.stack([whole.shift, whole.log_scale]).detach())


# --- the 1×1 convolutions ---------------------------------------------------------------


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_multiplies_the_channels_of_every_pixel(kind):
    layer, x = randomised(kind(C)), torch.randn(B, C, H, W)
    weight = layer.weight.detach()
    z, log_det = layer.inverse(x)
    expected = torch.empty_like(x)
    for i in range(H):
        for j in range(W):
            expected[:, :, i, j] = x[:, :, i, j] @ weight.T
    torch.testing.assert_close(z, expected, atol=1e-13, rtol=1e-13)
    determinant = torch.linalg.det(weight).abs().log()
    torch.testing.assert_close(log_det, (H * W * determinant).expand(B), atol=1e-12, rtol=1e-12)
    back, forward_log_det = layer(z)
    torch.testing.assert_close(back, x, atol=1e-12, rtol=1e-12)
    assert torch.equal(forward_log_det, -log_det)
    assert check.log_det_error(layer, z[:2]) < 1e-12
    for direction in (layer, layer.inverse):  # a vector is a single pixel
        as_vector, as_pixel = direction(x[:, :, 0, 0]), direction(x[:, :, :1, :1])
        torch.testing.assert_close(as_vector[0], as_pixel[0][:, :, 0, 0], atol=1e-13, rtol=1e-13)
        torch.testing.assert_close(as_vector[1], as_pixel[1])


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_new_convolution_is_orthogonal_to_the_last_digits_even_in_single_precision(kind):
    torch.set_default_dtype(torch.float32)
    weight = kind(16).weight.detach().double()
    assert (weight @ weight.T - torch.eye(16)).abs().max() < 16 * torch.finfo(torch.float32).eps
    assert abs(torch.linalg.slogdet(weight)[1]) < 16 * torch.finfo(torch.float32).eps


def test_the_start_favours_no_direction():
    """Each entry of a uniform orthogonal matrix has mean 0 and mean square 1/C."""
    entries = torch.stack([Convolution1x1(2).weight.detach() for _ in range(2000)])
    assert entries.mean(0).abs().max() < 5 / math.sqrt(2 * 2000)
    assert (entries.square().mean(0) - 0.5).abs().max() < 5 * math.sqrt(1 / 8 / 2000)


def test_the_factors_are_what_they_say_and_the_permutation_stays():
    layer = randomised(ConvolutionLU(5))
    assert torch.equal(layer.L, layer.L.tril())
    assert torch.equal(layer.L.diagonal(), torch.ones(5))
    assert torch.equal(layer.U, layer.U.triu())
    torch.testing.assert_close(layer.U.diagonal().abs().log(), layer.log_diagonal)
    assert torch.equal(layer.permutation.sum(0), torch.ones(5))
    assert torch.equal(layer.permutation.sum(1), torch.ones(5))
    assert {name for name, _ in layer.named_parameters()} == {"lower", "upper", "log_diagonal"}


def test_lu_stays_invertible_where_the_plain_matrix_need_not():
    layer, z = ConvolutionLU(3), torch.randn(4, 3)
    nn.init.constant_(layer.log_diagonal, -5.0)
    x, log_det = layer(z)
    rounding = torch.finfo(x.dtype).eps * torch.linalg.matrix_norm(layer.weight, 2) * x.norm()
    assert (layer.inverse(x)[0] - z).abs().max() < 8 * rounding
    assert torch.equal(log_det, torch.full((4,), 15.0))
    singular = Convolution1x1(3)
    nn.init.ones_(singular.weight)
    with pytest.raises(RuntimeError, match="singular"):
        singular(z)


# --- coupling, squeeze, factoring out ---------------------------------------------------


def test_the_split_prior_is_the_normal_density_of_what_is_factored_out():
    """log p(x_a, x_b) = log N(x_a; 0, 1) + log N(x_b; t(x_a), e^{s(x_a)}) by torch.distributions."""
    net = randomised(MLP(2, 4, (8,)))
    x = torch.randn(B, 4)
    raw, mean = net(x[:, :2]).chunk(2, 1)
    prior = torch.distributions.Normal(mean, (2 * torch.tanh(raw / 2)).exp())
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x[:, :2]).sum(1) + prior.log_prob(x[:, 2:]).sum(
        1
    )
    torch.testing.assert_close(Flow(ChannelCoupling(4, net), StandardNormal(4)).log_prob(x), expected)


def test_squeeze_puts_every_block_into_the_channels_of_one_pixel():
    z = torch.randn(B, 3, 4, 6)
    x, log_det = Squeeze()(z)
    assert x.shape == (B, 12, 2, 3)
    for c in range(3):
        for a in range(2):
            for b in range(2):
                assert torch.equal(x[:, 4 * c + 2 * a + b], z[:, c, a::2, b::2])
    assert torch.equal(Squeeze().inverse(x)[0], z)
    assert torch.equal(log_det, torch.zeros(B))
    assert torch.equal(Squeeze().inverse(x)[1], torch.zeros(B))


def test_what_is_factored_out_is_a_latent_already():
    inner = randomised(Compose([ConvolutionLU(2), ActNorm(2)]))
    layer, x = OnChannels(inner, 2), torch.randn(B, C, H, W)
    z, log_det = layer.inverse(x)
    assert torch.equal(z[:, 2:], x[:, 2:])
    expected = inner.inverse(x[:, :2])
    assert torch.equal(z[:, :2], expected[0])
    assert torch.equal(log_det, expected[1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ChannelCoupling(1, MLP(1, 2)), "must hold True"),
        (lambda: ChannelCoupling(4, MLP(2, 4), bound=0), "bound must be a positive number up to 80"),
        (lambda: glow(event_shape=(1, 6, 6)), r"multiples of 4; it came as \(1, 6, 6\)"),
        (lambda: glow(event_shape=(16,)), r"glow takes images, event_shape=\(C, H, W\)"),
        (lambda: glow(scales=0), "scales must be a whole number"),
        (lambda: realnvp_multiscale(event_shape=(1, 2, 2)), "down to one pixel"),
    ],
)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# --- the models -------------------------------------------------------------------------


@pytest.mark.parametrize("mix", [Convolution1x1, lambda c: Permute(list(reversed(range(c))))])
def test_glow_takes_any_layer_that_mixes(mix):
    flow = randomised(glow(mix=mix, hidden=(4,)))
    z = torch.randn(2, 1, 4, 4)
    assert check.round_trip_error(flow.bijection, z) < 1e-10
    assert check.log_det_error(flow.bijection, z) < 1e-10


def test_one_training_call_starts_every_actnorm_and_sampling_none():
    flow = glow(event_shape=(1, 8, 8), scales=3)
    norms = [module for module in flow.modules() if isinstance(module, ActNorm)]
    assert len(norms) == 6
    flow.sample(4)
    assert not any(norm.started for norm in norms)
    x = 3 * torch.randn(200, 1, 8, 8) + 5
    log_p = flow.log_prob(x)
    assert all(norm.started for norm in norms)
    assert torch.equal(flow.eval().log_prob(x), log_p)
    z = flow.encode(x).detach()
    assert abs(z.mean()) < 0.05
    assert abs(z.var() - 1) < 0.05


@pytest.mark.parametrize("build", [glow, realnvp_multiscale])
def test_every_latent_reaches_the_image_and_every_class_its_own_density(build):
    flow = randomised(build(event_shape=(2, 4, 4), context_features=3))
    z, labels = torch.randn(1, 2, 4, 4), torch.eye(3)
    matrix = check.jacobian(lambda p: flow.decode(p, labels[:1]), z)[0]
    assert (matrix != 0).any(0).all()
    assert len(set(flow.log_prob(z.expand(3, -1, -1, -1), labels).tolist())) == 3


def test_the_start_of_every_actnorm_compiles_without_a_graph_break():
    flow, x = glow(layers=1, hidden=(4,)), 3 * torch.randn(8, 1, 4, 4) + 1
    reference = copy.deepcopy(flow)
    compiled = torch.compile(flow, backend="eager", fullgraph=True)
    for _ in range(2):  # the first call starts the actnorms, the second does not
        torch.testing.assert_close(compiled(x), reference(x))
    assert flow.state_dict().keys() == reference.state_dict().keys()
