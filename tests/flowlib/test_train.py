"""Training: it reaches known optima, repeats itself exactly, and stops with a sentence instead of NaN."""

import csv
import math
import re
import struct
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flowlib import (
    MODELS,
    Bijection,
    Compose,
    Dequantize,
    Flow,
    History,
    Logit,
    Permute,
    Scale,
    StandardNormal,
    UniformBox,
    fit,
    fit_reverse_kl,
)
from flowlib.data import U1, Checkerboard, EightGaussians
from flowlib.nets import Conditioner
from flowlib.train import report

QUIET = {"progress": False}


class Affine(Bijection):
    """x = z·exp(s) + t + W context: the smallest flow with a known best fit."""

    def __init__(self, d: int = 2, context_features: int = 0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(d))
        self.shift = nn.Parameter(torch.zeros(d))
        self.weight = nn.Parameter(torch.zeros(d, context_features)) if context_features else None

    def place(self, context: Tensor | None) -> Tensor:
        return self.shift if self.weight is None else self.shift + context @ self.weight.T

    def exact(self):
        return torch.distributions.Normal(self.shift.detach(), self.log_scale.detach().exp())

    def forward(self, z, context=None):
        return z * self.log_scale.exp() + self.place(context), self.log_scale.sum().expand(len(z))

    def inverse(self, x, context=None):
        z = (x - self.place(context)) * (-self.log_scale).exp()
        return z, -self.log_scale.sum().expand(len(x))


class Breaks(Affine):
    """Gives NaN for one point from the step on whose number is ``at``."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def spoil(self, points: Tensor) -> Tensor:
        self.calls += 1
        hole = torch.zeros(len(points), 1)
        hole[1] = math.nan if self.calls >= self.at else 0.0
        return points + hole

    def forward(self, z, context=None):
        x, log_det = super().forward(z, context)
        return self.spoil(x), log_det

    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return self.spoil(z), log_det


class NoGradient(Affine):
    """Finite everywhere, with a derivative that is not: sqrt(0 · shift)."""

    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return z + (0 * self.shift).sqrt(), log_det


class Noisy(Affine):
    """Draws from the global generator, as dequantisation does."""

    def inverse(self, x, context=None):
        return super().inverse(x + torch.rand_like(x), context)


class Normal:
    """A Gaussian to sample, with the entropy that a fit should reach."""

    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])

    def sample(self, n, generator=None):
        return self.mean + self.std * torch.randn(n, 2, generator=generator)

    def exact(self):
        return torch.distributions.Normal(self.mean, self.std)

    def log_prob(self, x):
        return self.exact().log_prob(x).sum(1)


def affine_flow(*layers, d=2, context_features=0):
    layers = layers or [Affine(d, context_features)]
    return Flow(Compose(layers), StandardNormal(d), context_features)


def state(flow):
    return torch.cat([p.detach().flatten().clone() for p in flow.parameters()])


def calls(flow):
    """Record what the flow is called with, through the hooks that DistributedDataParallel needs too."""
    seen = []
    flow.register_forward_pre_hook(lambda _, args: seen.append([a if a is None else a.clone() for a in args]))
    return seen


# --- it finds what is known ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_batch_fit_reaches_the_data_s_own_mean_and_deviation(dtype):
    data = Normal().sample(500, torch.Generator().manual_seed(1)).to(dtype)
    flow = affine_flow().to(dtype)
    history = fit(flow, data, steps=400, batch_size=500, lr=0.1, clip=None, **QUIET)
    layer = flow.bijection.layers[0]
    deviation = data.std(0, correction=0)
    least = float(deviation.log().sum() + math.log(2 * math.pi * math.e))
    tol = 1e-4 if dtype == torch.float32 else 1e-8
    assert history.loss[-1] == pytest.approx(least, abs=tol)
    assert torch.allclose(layer.shift, data.mean(0), atol=math.sqrt(tol))
    assert torch.allclose(layer.log_scale.exp(), deviation, atol=math.sqrt(tol))
    assert {p.dtype for p in flow.parameters()} == {dtype}


def kl(p: torch.distributions.Normal, q: torch.distributions.Normal) -> Tensor:
    return torch.distributions.kl_divergence(p, q).sum()


def test_fit_on_a_sampler_reaches_its_entropy():
    flow = affine_flow()
    fit(flow, Normal(), steps=1500, lr=0.05, **QUIET)
    # the expected loss is the entropy plus this divergence
    assert kl(Normal().exact(), flow.bijection.layers[0].exact()) < 1e-3


@pytest.mark.parametrize("log_z", [0.0, 5.0])
def test_reverse_kl_reaches_minus_log_z(log_z):
    flow = affine_flow()
    history = fit_reverse_kl(
        flow, lambda x: Normal().log_prob(x) + log_z, steps=1500, batch_size=64, lr=0.05, **QUIET
    )
    assert kl(flow.bijection.layers[0].exact(), Normal().exact()) < 1e-3
    # a batch's loss is off by less than the parameters are: at the optimum its integrand is constant
    assert history.loss[-1] == pytest.approx(-log_z, abs=0.05)


def test_a_target_that_is_a_network_does_not_train_and_stays_in_its_mode():
    target = affine_flow().eval()
    before = state(target)
    fit_reverse_kl(affine_flow(), target, steps=5, lr=0.1, **QUIET)
    assert not target.training
    assert torch.equal(state(target), before)


def test_context_shifts_the_fit():
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(400, 3, generator=generator)
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
    data = context @ weight.T + 0.1 * torch.randn(400, 2, generator=generator)
    flow = affine_flow(context_features=3)
    fit(flow, data, context=context, steps=1000, batch_size=100, lr=0.05, **QUIET)
    assert torch.allclose(flow.bijection.layers[0].weight, weight, atol=0.03)


# --- batches -------------------------------------------------------------------------------


def test_epochs_show_each_row_at_most_once_with_its_context():
    data = torch.arange(10.0)[:, None].expand(10, 2)
    flow = affine_flow(context_features=1)
    seen = calls(flow)
    fit(flow, data, context=-data[:, :1], steps=40, batch_size=4, lr=1e-9, **QUIET)
    orders = []
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert len(first[0]) == len(second[0]) == 4
        orders.append(torch.cat([first[0], second[0]])[:, 0].tolist())
        assert len(set(orders[-1])) == 8
    for points, context in seen:
        assert torch.equal(context, -points[:, :1])
    assert len({tuple(order) for order in orders}) > 15
    assert {row for order in orders for row in order} == set(range(10))


def test_a_batch_larger_than_the_data_is_all_of_the_data():
    flow = affine_flow()
    seen = calls(flow)
    fit(flow, torch.arange(6.0).reshape(3, 2), steps=2, batch_size=100, **QUIET)
    assert [sorted(points.flatten().tolist()) for points, _ in seen] == [[0, 1, 2, 3, 4, 5]] * 2


def test_a_sampler_is_cast_to_the_flow_and_drawn_anew():
    flow = affine_flow().double()
    seen = calls(flow)
    fit(flow, EightGaussians(), steps=3, batch_size=7, **QUIET)
    assert [(points.shape, points.dtype) for points, _ in seen] == [((7, 2), torch.float64)] * 3
    assert not torch.equal(seen[0][0], seen[1][0])


def test_a_flow_can_be_the_data():
    assert len(fit(affine_flow(), affine_flow(), steps=2, **QUIET).loss) == 2


# --- the same call, the same result ----------------------------------------------------------


def run_fit(seed, layer=Affine):
    flow = affine_flow(layer(), Affine())
    return fit(flow, EightGaussians(), steps=20, lr=0.05, seed=seed, **QUIET), state(flow)


def run_rows(seed):
    flow = affine_flow()
    rows = Normal().sample(50, torch.Generator())
    return fit(flow, rows, steps=20, batch_size=8, seed=seed, **QUIET), state(flow)


def run_reverse(seed):
    flow = affine_flow()
    return fit_reverse_kl(flow, U1().log_unnormalised, steps=20, lr=0.05, seed=seed, **QUIET), state(flow)


@pytest.mark.parametrize("run", [run_fit, run_rows, run_reverse, lambda seed: run_fit(seed, Noisy)])
def test_one_seed_one_result_and_the_global_random_state_stays(run):
    before = torch.get_rng_state()
    history, end = run(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again, end_again = run(0)
    assert history.loss == again.loss
    assert history.grad_norm == again.grad_norm
    assert torch.equal(end, end_again)
    other, _ = run(1)
    assert history.loss != other.loss


def test_layers_that_draw_do_not_repeat_the_data_s_random_numbers():
    class Uniform:
        def sample(self, n, generator=None):
            self.drawn = torch.rand(n, 2, generator=generator)
            return self.drawn

    class Remembers(Affine):
        def inverse(self, x, context=None):
            self.drawn = torch.rand(x.shape)
            return super().inverse(x, context)

    data, layer = Uniform(), Remembers()
    fit(affine_flow(layer), data, steps=1, **QUIET)
    assert not torch.isin(layer.drawn, data.drawn).any()


# --- the recipe ------------------------------------------------------------------------------


def test_the_learning_rate_falls_along_a_cosine():
    history = fit(affine_flow(), Normal(), steps=100, lr=0.1, **QUIET)
    assert history.lr[0] == 0.1
    assert history.lr[50] == pytest.approx(0.05)
    assert history.lr[99] == pytest.approx(0.05 * (1 - math.cos(math.pi / 100)))
    assert len(history.loss) == len(history.grad_norm) == 100
    assert history.seconds > 0


def test_adam_s_first_step_has_length_lr_against_the_gradient():
    flow = affine_flow()
    fit(flow, Normal(), steps=1, lr=0.01, **QUIET)
    assert torch.allclose(state(flow).abs(), torch.tensor(0.01), rtol=1e-4)
    assert torch.equal(flow.bijection.layers[0].shift.sign(), Normal.mean.sign())


@pytest.mark.parametrize("clip", [0.5, 100.0, None])
def test_clipping_shortens_the_gradient_and_keeps_its_direction(clip, monkeypatch):
    flow, seen, step = affine_flow(Affine(), Affine()), [], torch.optim.Adam.step
    start = affine_flow(Affine(), Affine())
    points = Normal().sample(50, torch.Generator())
    full = torch.cat([g.flatten() for g in torch.autograd.grad(-start(points).mean(), start.parameters())])

    def note(optimiser):
        seen.append(torch.cat([p.grad.flatten() for p in flow.parameters()]))
        return step(optimiser)

    monkeypatch.setattr(torch.optim.Adam, "step", note)
    history = fit(flow, points, steps=1, batch_size=50, clip=clip, **QUIET)
    length = float(full.norm())
    assert history.grad_norm == [pytest.approx(length, rel=1e-5)]
    shorter = 1.0 if clip is None else min(1.0, clip / length)
    assert torch.allclose(seen[0], shorter * full, rtol=1e-4)


def test_warm_up_weighs_the_target():
    def run(height, warm_up):
        flat = affine_flow()
        return fit_reverse_kl(
            flat, lambda x: 0 * x.sum(1) + height, steps=20, lr=1e-12, warm_up=warm_up, **QUIET
        ).loss

    beta = [(a - b) / 100 for a, b in zip(run(0, 10), run(100, 10), strict=True)]
    assert beta == pytest.approx([min(1, 0.01 + t / 10) for t in range(20)], abs=1e-5)
    assert [(a - b) / 100 for a, b in zip(run(0, 0), run(100, 0), strict=True)] == pytest.approx([1] * 20)


def test_the_flow_is_left_in_eval_mode_without_gradients_and_trained_in_train_mode():
    flow = affine_flow().eval()
    modes = []
    flow.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    fit(flow, Normal(), steps=2, device="cpu", **QUIET)
    assert modes == [True, True]
    assert not any(module.training for module in flow.modules())
    assert all(p.grad is None for p in flow.parameters())


def test_frozen_parameters_stay():
    flow = affine_flow(Affine(), Affine())
    flow.bijection.layers[0].requires_grad_(False)
    fit(flow, Normal(), steps=3, lr=0.1, **QUIET)
    assert state(flow.bijection.layers[0]).count_nonzero() == 0
    assert state(flow.bijection.layers[1]).count_nonzero() == 4


# --- held-out points and averages --------------------------------------------------------------


def test_the_average_is_the_exponential_one_and_training_does_not_see_it():
    steps, points = [], Normal().sample(50, torch.Generator())
    plain, averaged = affine_flow(), affine_flow()
    plain.register_forward_pre_hook(lambda *_: steps.append(state(plain)))
    history = fit(plain, points, steps=5, lr=0.1, **QUIET)
    steps.append(state(plain))  # what the last update made
    assert fit(averaged, points, steps=5, lr=0.1, ema=0.75, **QUIET).loss == history.loss
    expected = steps[1]
    for after in steps[2:]:
        expected = 0.75 * expected + 0.25 * after
    assert torch.allclose(state(averaged), expected, rtol=1e-6)
    assert not torch.allclose(state(averaged), steps[-1], rtol=1e-2)


def test_patience_ends_training_and_the_best_parameters_are_kept():
    points = 3 + torch.randn(60, 2)
    held_out = torch.randn(40, 2) + 1  # on the way
    flow = affine_flow()
    history = fit(
        flow, points, steps=400, lr=0.05, validation=held_out, validate_every=5, patience=3, **QUIET
    )
    steps, values = zip(*history.validation, strict=True)
    assert steps == tuple(range(5, len(history.loss) + 1, 5))
    assert len(history.loss) < 200
    assert values.index(min(values)) == len(values) - 4
    assert not history.interrupted
    assert -float(flow.log_prob(held_out).mean().detach()) == pytest.approx(min(values), abs=1e-5)


def test_without_patience_the_best_is_kept_all_the_same():
    flow, held_out = affine_flow(), torch.randn(40, 2) + 1
    history = fit(flow, 3 + torch.randn(60, 2), steps=90, lr=0.05, validation=held_out, **QUIET)
    assert [step for step, _ in history.validation] == [90]
    history = fit(
        flow, 3 + torch.randn(60, 2), steps=90, lr=0.05, validation=held_out, validate_every=20, **QUIET
    )
    assert [step for step, _ in history.validation] == [20, 40, 60, 80, 90]
    best = min(value for _, value in history.validation)
    assert -float(flow.log_prob(held_out).mean().detach()) == pytest.approx(best, abs=1e-5)


def test_a_validation_that_is_not_finite_is_never_the_best():
    flow = Flow(Compose([Affine()]), UniformBox(2, -3, 3))
    inside, outside = torch.rand(30, 2), torch.full((5, 2), 50.0)
    history = fit(flow, inside, steps=20, lr=0.01, validation=outside, validate_every=1, patience=4, **QUIET)
    assert history.validation == [(k, math.inf) for k in range(1, 6)]


def test_conditional_points_are_held_out_with_their_context():
    context = torch.randn(40, 3)
    flow = affine_flow(context_features=3)
    arguments = {"validation": context[:, :2], "validation_context": context, "batch_size": 16}
    history = fit(flow, context[:, 1:], context=context, steps=5, **arguments, **QUIET)
    expected = -flow.log_prob(context[:, :2], context).mean().detach()
    assert history.validation == [(5, pytest.approx(float(expected), abs=1e-6))]


def dequantising():
    return Flow(Compose([Affine(), Logit(0.05), Dequantize(4)]), StandardNormal(2))


INTEGERS = torch.randint(4, (60, 2), generator=torch.Generator().manual_seed(0)).float()


def test_looking_does_not_move_the_training_s_random_numbers(tmp_path):
    def losses(**looks):
        return fit(dequantising(), INTEGERS, steps=9, batch_size=20, lr=0.05, **looks, **QUIET).loss

    assert losses(validation=INTEGERS, validate_every=2, samples=tmp_path, samples_every=3) == losses()


# --- the whole batch, in pieces or in bfloat16 ---------------------------------------------------


@pytest.mark.parametrize("pieces", [2, 5])
def test_pieces_make_the_update_of_the_whole_batch(pieces):
    points = Normal().sample(50, torch.Generator()).double()
    whole, cut = (affine_flow(Affine(), Affine()).double() for _ in range(2))
    seen = calls(cut)
    history = fit(whole, points, steps=20, batch_size=10, lr=0.05, **QUIET)
    again = fit(cut, points, steps=20, batch_size=10, lr=0.05, accumulate=pieces, **QUIET)
    assert {len(points) for points, _ in seen} == {10 // pieces}
    assert again.loss == pytest.approx(history.loss, abs=1e-12)
    assert again.grad_norm == pytest.approx(history.grad_norm, abs=1e-12)
    assert torch.allclose(state(cut), state(whole), rtol=0, atol=1e-12)


def test_a_sampler_s_batch_is_cut_too():
    flow = affine_flow()
    seen = calls(flow)
    fit(flow, Normal(), steps=2, batch_size=6, accumulate=3, **QUIET)
    assert [len(points) for points, _ in seen] == [2] * 6


def test_bfloat16_stays_close_and_ends_with_the_training():
    points = EightGaussians().sample(500, torch.Generator())
    histories, flows = [], []
    for bfloat16 in (False, True):
        torch.manual_seed(0)
        flows.append(MODELS["realnvp"](layers=4, hidden=(16,)))
        arguments = {"steps": 60, "batch_size": 100, "lr": 1e-3, "bfloat16": bfloat16, "ema": 0.5}
        histories.append(fit(flows[-1], points, **arguments, **QUIET))
    losses, in_bfloat16 = histories[0].loss, histories[1].loss
    assert losses != in_bfloat16
    assert in_bfloat16 == pytest.approx(losses, abs=0.03)
    with torch.no_grad():
        drift = flows[1].log_prob(points) - flows[0].log_prob(points)
    assert drift.abs().mean() < 0.03
    nets = [module for module in flows[1].modules() if isinstance(module, Conditioner)]
    assert len(nets) == 4
    assert {net.autocast_dtype for net in nets} == {None}


def test_compile_is_for_the_loss_alone(monkeypatch):
    compiled, compile = [], torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda flow: compiled.append(flow) or compile(flow, backend="eager", fullgraph=True)
    )
    points = Normal().sample(20, torch.Generator())
    expected = fit(affine_flow(), points, steps=3, **QUIET).loss
    flow = affine_flow()
    history = fit(flow, points, steps=3, compile=True, validation=points, **QUIET)
    assert history.loss == pytest.approx(expected, abs=1e-5)
    assert compiled == [flow]


class Waits(TorchDispatchMode):
    """Counts the looks at a tensor's values, each of which waits for a GPU."""

    def __init__(self):
        super().__init__()
        self.looks = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.looks += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["realnvp", "glow"])
def test_no_step_looks_at_values_but_once(name, accumulate):
    """The one look is a transfer of three numbers, which no operator shows."""

    def looks(steps):
        shape = (1, 8, 8)
        flow = MODELS[name](event_shape=shape, layers=1, hidden=(4,))
        with Waits() as waits:
            fit(flow, torch.randn(8, *shape), steps=steps, batch_size=4, accumulate=accumulate, **QUIET)
        return waits.looks

    assert looks(2) == looks(6)


# --- pictures ----------------------------------------------------------------------------------


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4), (3, 4, 4)])
def test_samples_are_drawn_in_a_folder(tmp_path, shape):
    import matplotlib.pyplot as plt

    flow = Flow(Permute(range(shape[0])) if len(shape) == 1 else Scale(shape), StandardNormal(shape))
    flow.free = nn.Parameter(torch.zeros(()))
    flow.register_forward_hook(lambda module, _, log_prob: log_prob + module.free)
    before = plt.get_fignums()
    fit(flow, torch.randn(9, *shape), steps=5, samples=tmp_path / "new", samples_every=2, **QUIET)
    files = sorted((tmp_path / "new").iterdir())
    assert [file.name for file in files] == ["step_000002.png", "step_000004.png", "step_000005.png"]
    assert all(min(png_size(file)) > 100 for file in files)
    assert plt.get_fignums() == before


def test_a_picture_that_fails_is_a_warning(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(report, "picture", fail)
    with pytest.warns(UserWarning, match="After step 2 not all could be written: the disk is full"):
        assert len(fit(affine_flow(), Normal(), steps=2, samples=tmp_path, **QUIET).loss) == 2


# --- what is not finite ----------------------------------------------------------------------


class Recording(StandardNormal):
    """Notes the flow's parameters whenever it is sampled, which is once at the start of a step."""

    def sample(self, n, generator=None):
        self.starts.append(self.look())
        return super().sample(n, generator)


def breaks(train, *layers, base=None):
    """Train until it breaks; return the message, and how many steps were begun."""
    recording = Recording(2)
    flow = Flow(Compose(layers), base or recording)
    recording.starts, recording.look = [], lambda: state(flow)
    with pytest.raises(FloatingPointError) as error:
        train(flow, recording)
    last = recording.starts[-1]
    assert last.isfinite().all()
    assert torch.equal(state(flow), last)
    assert not flow.training
    assert all(p.grad is None for p in flow.parameters())
    return str(error.value), len(recording.starts)


def likelihood(flow, data):
    fit(flow, data, steps=9, batch_size=16, lr=0.1, **QUIET)


def reverse(log_density):
    return lambda flow, _: fit_reverse_kl(flow, log_density, steps=9, batch_size=16, lr=0.1, **QUIET)


@pytest.mark.parametrize(
    ("train", "way", "what"),
    [
        (likelihood, "inverse", "the loss is nan, and its gradient has length nan"),
        (reverse(U1().log_unnormalised), "forward", "a sample is not finite"),
    ],
)
def test_nan_in_a_layer_names_the_step_and_the_layer(train, way, what):
    message, begun = breaks(train, Affine(), Affine(), Breaks(at=4), Affine())
    assert begun == 4
    assert message.startswith(
        f"Step 4 of 9: {what}. Layer 2 (Breaks) is the first whose {way} is not finite, in 1 of 16 points. "
    )
    assert "The parameters are those from before this step: try a smaller lr or clip." in message


def test_the_layer_is_named_without_a_compose():
    layer = Breaks(at=1)
    with pytest.raises(FloatingPointError, match=r"Step 1 of 5.*Layer 0 \(Breaks\)"):
        fit(Flow(layer, StandardNormal(2)), Normal(), steps=5, **QUIET)


def test_nan_in_a_gradient_names_the_parameter():
    message, begun = breaks(likelihood, Affine(), NoGradient())
    assert begun == 1
    assert "its gradient has length nan. The gradient of bijection.layers.1.shift is not finite. " in message
    assert "Layer" not in message


def test_points_outside_the_base_are_not_blamed_on_a_layer():
    message, _ = breaks(likelihood, Affine(), base=UniformBox(2, -0.1, 0.1))
    assert "Every layer is finite, but the base UniformBox is not." in message


def test_a_target_that_is_zero_somewhere_is_named():
    message, _ = breaks(reverse(Checkerboard().log_prob), Affine())
    assert "Every layer is finite, but log_density is not." in message


def test_nan_from_a_sampler_is_refused_at_the_door():
    class Holes:
        def sample(self, n, generator=None):
            return torch.full((n, 2), math.nan)

    with pytest.raises(ValueError, match="x holds NaN or infinity in 8 of 8 points"):
        fit(affine_flow(), Holes(), batch_size=8, **QUIET)


def test_ctrl_c_keeps_what_was_learned():
    class Impatient(Normal):
        drawn = 0

        def sample(self, n, generator=None):
            self.drawn += 1
            if self.drawn == 5:
                raise KeyboardInterrupt
            return super().sample(n, generator)

    flow = affine_flow()
    before = torch.get_rng_state()
    history = fit(flow, Impatient(), steps=10, lr=0.1, **QUIET)
    assert len(history.loss) == len(history.lr) == 4
    assert history.interrupted
    assert repr(history).endswith(", interrupted)")
    assert flow.bijection.layers[0].shift.abs().min() > 0.1
    assert not flow.training
    assert torch.equal(torch.get_rng_state(), before)


# --- the door --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"data": torch.zeros(5, 3)}, ValueError, "data has shape (5, 3)"),
        ({"data": torch.tensor(1.0)}, ValueError, "data has shape ()"),
        ({"data": torch.zeros(0, 2)}, ValueError, "data holds no points"),
        (
            {"data": torch.zeros(5, 2).double()},
            TypeError,
            "data is torch.float64 and the flow is torch.float32",
        ),
        ({"data": torch.zeros(5, 2).long()}, TypeError, "data is torch.int64"),
        (
            {"data": torch.tensor([[0.0, math.nan]])},
            ValueError,
            "data holds NaN or infinity in 1 of 1 points",
        ),
        ({"data": [[0.0, 0.0]]}, TypeError, "data must be a torch.Tensor and came as list"),
        ({"context": torch.zeros(5, 1)}, ValueError, "This flow takes no context"),
        ({"data": Normal(), "context": torch.zeros(5, 1)}, ValueError, "A sampler draws no context"),
        ({"steps": 0}, ValueError, "steps must be a whole number, 1 or more, and came as 0"),
        ({"steps": 1.5}, ValueError, "steps must be a whole number, 1 or more, and came as 1.5"),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number, 1 or more, and came as 0"),
        ({"lr": 0.0}, ValueError, "lr must be a number between 0 and inf, and came as 0.0"),
        ({"lr": math.nan}, ValueError, "lr must be a number between 0 and inf, and came as nan"),
        (
            {"clip": 0.0},
            ValueError,
            "clip must be a number between 0 and inf, and came as 0.0",
        ),
        ({"ema": 1.0}, ValueError, "ema must be a number between 0 and 1, and came as 1.0"),
        ({"accumulate": 0}, ValueError, "accumulate must be a whole number, 1 or more, and came as 0"),
        ({"patience": 0, "validation": torch.zeros(5, 2)}, ValueError, "patience must be a whole number"),
        ({"patience": 3}, ValueError, "patience needs validation"),
        ({"validate_every": 0}, ValueError, "validate_every must be a whole number"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be a whole number"),
        ({"samples_every": 0}, ValueError, "samples_every must be a whole number"),
        ({"validation": Normal()}, TypeError, "validation must be a torch.Tensor and came as Normal"),
        ({"validation": torch.zeros(5, 3)}, ValueError, "validation has shape (5, 3)"),
        ({"validation": torch.zeros(0, 2)}, ValueError, "validation holds no points"),
        ({"samples": __file__}, FileExistsError, "test_train.py"),
        ({"flow": affine_flow().requires_grad_(False)}, ValueError, "empty parameter list"),
    ],
)
def test_fit_refuses(arguments, error, words):
    arguments = {"flow": affine_flow(), "data": torch.zeros(5, 2), "steps": 2, **arguments}
    with pytest.raises(error, match=re.escape(words)):
        fit(arguments.pop("flow"), arguments.pop("data"), **arguments, **QUIET)


@pytest.mark.parametrize(
    ("data", "context", "words"),
    [
        (torch.zeros(5, 2), None, "context must have shape (5, 3) and came as NoneType"),
        (torch.zeros(5, 2), torch.zeros(4, 3), "context must have shape (5, 3) and came as (4, 3)"),
        (torch.zeros(5, 2), torch.full((5, 3), math.nan), "context holds NaN or infinity"),
        (torch.zeros(5, 2), torch.zeros(5, 3).double(), "context is torch.float64"),
        (torch.zeros(5, 2), [0, 1, 2, 3, 4], "context must have shape (5, 3) and came as list"),
        (Normal(), None, "came as NoneType"),
    ],
)
def test_a_conditional_flow_refuses(data, context, words):
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        fit(affine_flow(context_features=3), data, context=context, steps=2, **QUIET)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"log_density": U1()}, TypeError, "not callable"),
        (
            {"log_density": lambda x: x},
            ValueError,
            "log_density must give one number a point, and gave (4, 2)",
        ),
        ({"log_density": lambda x: x.sum()}, ValueError, "and gave ()"),
        ({"warm_up": -1}, ValueError, "warm_up must be a whole number, 1 or more, and came as -1"),
        ({"flow": affine_flow(context_features=1)}, ValueError, "takes flows without context"),
        ({"steps": 0}, ValueError, "steps must be a whole number"),
    ],
)
def test_reverse_kl_refuses(arguments, error, words):
    arguments = {
        "flow": affine_flow(),
        "log_density": U1().log_prob,
        "steps": 2,
        "batch_size": 4,
        **arguments,
    }
    with pytest.raises(error, match=re.escape(words)):
        fit_reverse_kl(arguments.pop("flow"), arguments.pop("log_density"), **arguments, **QUIET)


# --- what one sees ---------------------------------------------------------------------------


def test_history_reads_as_a_sentence():
    assert repr(History()) == "History(no steps)"
    assert repr(History(loss=[3.0, 2.5, 2.0])) == "History(3 steps, loss 3.000 → 2.000)"


def test_history_as_csv_gives_back_every_number(tmp_path):
    path = tmp_path / "history.csv"
    flow, points = affine_flow(), Normal().sample(20, torch.Generator())
    history = fit(flow, points, steps=7, validation=points, validate_every=3, history=path, **QUIET)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 8))
    for name in ("loss", "lr", "grad_norm"):
        assert [float(row[name]) for row in rows] == getattr(history, name)
    found = [(int(row["step"]), float(row["validation"])) for row in rows if row["validation"]]
    assert found == history.validation
    assert [step for step, _ in found] == [3, 6, 7]
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]


def test_an_old_history_is_replaced(tmp_path):
    for steps in (5, 2):
        fit(affine_flow(), Normal(), steps=steps, history=tmp_path / "history.csv", **QUIET)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3


def test_the_bar_counts_the_steps(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, initial):
            self.total, self.count = total, 0
            bars.append(self)

        def set_postfix_str(self, text, refresh):
            self.text = text

        def update(self):
            self.count += 1

    monkeypatch.setattr("tqdm.tqdm", Bar)
    history = fit(affine_flow(), Normal(), steps=3)
    fit(affine_flow(), Normal(), steps=3, progress=False)
    (bar,) = bars
    assert (bar.total, bar.count) == (3, 3)
    assert bar.text == f"loss {history.loss[-1]:.3f} nats"
    bits = fit(dequantising(), INTEGERS, steps=3).loss[-1] / (2 * math.log(2))
    assert bars[-1].text == f"loss {bits:.3f} bits per dimension"


def test_training_needs_no_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert len(fit(affine_flow(), Normal(), steps=2).loss) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("layer", [Affine, Noisy])
def test_a_gpu_sees_the_same_data(layer):
    flow, other = affine_flow(layer()), affine_flow(layer())
    history = fit(flow, EightGaussians(), steps=20, lr=0.05, **QUIET)
    before = torch.cuda.get_rng_state()
    moved = fit(other, EightGaussians(), steps=20, lr=0.05, device="cuda", **QUIET)
    assert other.base.device.type == "cuda"
    assert torch.equal(torch.cuda.get_rng_state(), before)
    if layer is Affine:
        assert moved.loss == pytest.approx(history.loss, rel=1e-4)
