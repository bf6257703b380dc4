"""A training that is killed, interrupted or out of room goes on as if nothing had happened."""

from __future__ import annotations

import os
import re
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, StudentT

from flowlib import (
    MLP,
    AffineCoupling,
    Compose,
    Dequantize,
    Flow,
    Logit,
    Scale,
    StandardNormal,
    UniformBox,
    alternating_mask,
    fit,
)
from flowlib.data import EightGaussians, TwoMoons
from flowlib.models import MODELS
from flowlib.train import CheckpointError, load_checkpoint, load_parameters
from tests.flowlib import forks

QUIET = {"progress": False}
INTEGERS = torch.randint(4, (60, 2), generator=torch.Generator().manual_seed(0)).float()


def dequantising():
    """A small flow whose likelihood draws from the global generator."""
    torch.manual_seed(0)
    couplings = MODELS["realnvp"](layers=2, hidden=(8,))
    return Flow(Compose([*couplings.bijection, Logit(0.05), Dequantize(4)]), couplings.base)


def plain():
    torch.manual_seed(0)
    return MODELS["realnvp"](layers=2, hidden=(8,))


EVERYTHING = {
    "data": INTEGERS[:50],
    "validation": INTEGERS[50:],
    "validate_every": 4,
    "patience": 30,
    "ema": 0.9,
    "accumulate": 2,
    "batch_size": 16,
    "steps": 60,
    "lr": 0.02,
    "checkpoint_every": 3,
    **QUIET,
}


def end(flow, history):
    """All that two runs must have in common, to the last bit."""
    return flow.state_dict(), replace(history, seconds=0.0)


def same(one, other):
    (state, history), (other_state, other_history) = one, other
    return history == other_history and all(torch.equal(state[name], other_state[name]) for name in state)


# --- killed ----------------------------------------------------------------------------------


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(folder, where, count):
    """Train; die at the ``count``-th step, or at the ``count``-th call of what a save is made of."""
    flow, calls = dequantising(), 0

    def passed():
        nonlocal calls
        calls += 1
        return calls == count

    def deadly(function, before):
        def call(*arguments):
            last = passed()
            if last and where == "torn":  # half of the file has reached the disk
                os.truncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
            if last and before:
                die()
            function(*arguments)
            if last:
                die()

        return call

    if where == "step":
        flow.register_forward_pre_hook(lambda *_: die() if passed() else None)
    elif where in ("torn", "fsync"):
        os.fsync = deadly(os.fsync, before=where == "torn")
    elif where in ("before replace", "after replace"):
        os.replace = deadly(os.replace, before=where.startswith("before"))
    history = fit(flow, **EVERYTHING, checkpoint=folder / "run.pt")
    torch.save(end(flow, history), folder / "end")


def test_killed_again_and_again_and_resumed_it_ends_with_the_same_bits(tmp_path):
    # a step is two forward passes; a save syncs its file and replaces once
    kills = [
        ("step", 11),
        ("torn", 3),
        ("before replace", 2),
        ("after replace", 1),
        ("fsync", 4),
        ("step", 17),
    ]
    for where, count in kills:
        assert forks.run(train_until_killed, tmp_path, where, count) == -signal.SIGKILL
    assert forks.run(train_until_killed, tmp_path, "nowhere", 0) == 0
    flow = dequantising()
    expected = end(flow, fit(flow, **EVERYTHING))
    found = torch.load(tmp_path / "end", weights_only=False)
    assert len(expected[1].loss) == 60
    assert same(expected, found)
    assert {file.name for file in tmp_path.iterdir()} == {"run.pt", "end"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": EightGaussians()},
        {"data": EightGaussians().sample(50), "batch_size": 16},
        {"data": plain()},  # a flow that is sampled
    ],
    ids=["sampler", "rows", "flow"],
)
def test_in_float64_too_and_with_a_sampler(tmp_path, arguments):
    arguments = {"batch_size": 8, **arguments, "steps": 12, "checkpoint_every": 5, **QUIET}
    if isinstance(arguments["data"], torch.Tensor):
        arguments["data"] = arguments["data"].double()
    whole, halves = plain().double(), plain().double()
    expected = end(whole, fit(whole, **arguments))
    interrupt(halves, at=7)
    assert fit(halves, **arguments, checkpoint=tmp_path / "run.pt").interrupted
    halves = plain().double()
    assert same(expected, end(halves, fit(halves, **arguments, checkpoint=tmp_path / "run.pt")))


# --- Ctrl-C ----------------------------------------------------------------------------------


def interrupt(flow, at):
    """Press Ctrl-C in the middle of the ``at``-th call of the flow."""
    calls = iter(range(1, 10**9))
    flow.register_forward_pre_hook(
        lambda *_: signal.raise_signal(signal.SIGINT) if next(calls) == at else None
    )


def test_ctrl_c_saves_where_it_stands(tmp_path):
    path, flow = tmp_path / "run.pt", plain()
    interrupt(flow, at=5)
    arguments = {"data": INTEGERS, "steps": 10, "checkpoint": path, **QUIET}
    history = fit(flow, **arguments)
    assert history.interrupted
    assert len(history.loss) == load_checkpoint(path)["step"] == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = fit(plain(), **arguments)
    assert (len(resumed.loss), resumed.interrupted) == (10, False)
    assert resumed.loss[:5] == history.loss


def test_a_second_ctrl_c_while_saving_loses_nothing_that_was_saved(tmp_path, monkeypatch):
    path, flow = tmp_path / "run.pt", plain()
    sync, saves = os.fsync, iter(range(100))

    def twice(number):
        sync(number)
        if next(saves) == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "fsync", twice)
    history = fit(flow, INTEGERS, steps=10, checkpoint=path, checkpoint_every=3, **QUIET)
    assert history.interrupted
    assert len(history.loss) == 6
    assert load_checkpoint(path)["step"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- no room ---------------------------------------------------------------------------------


def train_without_room(folder):
    """After step 4 no file may grow beyond 1 kB, until step 8; and again from step 12 on."""
    flow, calls = plain(), iter(range(1, 100))

    def limit(*_):
        full = {5: 1000, 9: resource.RLIM_INFINITY, 13: 1000}.get(next(calls))
        if full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))

    flow.register_forward_pre_hook(limit)
    with pytest.warns(UserWarning, match="could be written") as caught:
        history = fit(
            flow,
            INTEGERS,
            steps=14,
            checkpoint=folder / "run.pt",
            checkpoint_every=4,
            history=folder / "run.csv",
            **QUIET,
        )
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    torch.save(([str(one.message) for one in caught], len(history.loss)), folder / "said")


def test_a_full_disk_is_a_warning_and_the_last_good_checkpoint_stays(tmp_path):
    assert forks.run(train_without_room, tmp_path) == 0
    messages, steps = torch.load(tmp_path / "said")
    assert steps == 14
    first, last = messages
    assert "After step 8 not all could be written: [Errno 27] File too large" in first
    assert first.endswith("What was there before stays.")
    assert "After step 14 not all could be written" in last
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 12
    assert {file.name for file in tmp_path.iterdir()} == {"run.csv", "run.pt", "said"}


# --- what a checkpoint is for ------------------------------------------------------------------


def test_a_finished_run_returns_at_once(tmp_path):
    arguments = {"data": INTEGERS, "steps": 6, "checkpoint": tmp_path / "run.pt", "ema": 0.5, **QUIET}
    flow, again = plain(), plain()
    expected = end(flow, fit(flow, **arguments))
    again.register_forward_pre_hook(lambda *_: pytest.fail("it trains again"))
    assert same(expected, end(again, fit(again, **arguments)))


def test_an_early_stop_is_a_finish(tmp_path):
    arguments = {"data": INTEGERS[:8], "validation": INTEGERS[8:], "steps": 90, "lr": 0.1, "patience": 1}
    arguments |= {"validate_every": 10, "checkpoint": tmp_path / "run.pt", **QUIET}
    flow, again = plain(), plain()
    expected = end(flow, fit(flow, **arguments))
    assert len(expected[1].loss) < 90
    assert same(expected, end(again, fit(again, **arguments)))


@pytest.mark.parametrize("kept", ["last", "average", "best"])
def test_parameters_come_back_as_fit_left_them(tmp_path, kept):
    flow, path = plain(), tmp_path / "run.pt"
    extra = {"last": {}, "average": {"ema": 0.9}, "best": {"validation": INTEGERS / 10, "validate_every": 1}}
    fit(flow, INTEGERS, steps=6, lr=0.1, checkpoint=path, **extra[kept], **QUIET)
    loaded = load_parameters(plain().train(), path)
    assert not loaded.training
    assert torch.equal(loaded.log_prob(INTEGERS), flow.log_prob(INTEGERS))
    last = load_checkpoint(path)["flow"]
    assert (kept == "last") == all(torch.equal(last[name], p) for name, p in loaded.state_dict().items())


def test_an_error_in_training_leaves_the_last_good_checkpoint(tmp_path):
    path, flow = tmp_path / "run.pt", plain()
    calls = iter(range(1, 100))

    def spoil(module, arguments, output):
        return output * float("nan") if next(calls) == 6 else output

    flow.register_forward_hook(spoil)
    arguments = {"data": INTEGERS, "steps": 10, "checkpoint": path, "checkpoint_every": 4, **QUIET}
    with pytest.raises(FloatingPointError, match="Step 6 of 10"):
        fit(flow, **arguments)
    assert load_checkpoint(path)["step"] == 4
    assert len(fit(plain(), **arguments).loss) == 10


def trained(path, **arguments):
    arguments = {"data": INTEGERS, "steps": 2, "checkpoint": path, **QUIET, **arguments}
    return fit(arguments.pop("flow", None) or plain(), arguments.pop("data"), **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": 0.01}, "was written with another setting: lr was 0.001 and is 0.01. Go on with the same"),
        ({"steps": 3, "seed": 1}, "steps was 2 and is 3; seed was 0 and is 1."),
        ({"clip": None}, "clip was 5.0 and is None"),
        ({"ema": 0.9}, "ema was None and is 0.9"),
        ({"data": INTEGERS + 1}, "data was (torch.float32 of shape (60, 2) with checksum"),
        ({"data": EightGaussians()}, "and is (EightGaussians(), None)"),
        (
            {"validation": INTEGERS},
            "validation was (None, None) and is (torch.float32",
        ),
        (
            {"flow": MODELS["realnvp"](layers=2, hidden=(9,))},
            "was written with another model: bijection.",
        ),
        (
            {"flow": plain().double(), "data": INTEGERS.double()},
            "was torch.float32 of shape (2,) and is torch.float64 of shape (2,)",
        ),
        (
            {"flow": MODELS["realnvp"](layers=1, hidden=(8,))},
            "and is missing",
        ),
    ],
)
def test_another_run_is_refused_and_its_checkpoint_kept(tmp_path, arguments, words):
    path = tmp_path / "run.pt"
    trained(path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=re.escape(words)):
        trained(path, **arguments)
    assert path.read_bytes() == before


def test_other_frozen_parameters_are_refused(tmp_path):
    trained(tmp_path / "run.pt")
    flow = plain()
    next(flow.parameters()).requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"frozen was  and is bijection\.layers\.0\."):
        trained(tmp_path / "run.pt", flow=flow)


def test_how_it_is_computed_may_change(tmp_path):
    flow = plain()
    interrupt(flow, at=1)
    trained(tmp_path / "run.pt", flow=flow)
    assert len(trained(tmp_path / "run.pt", accumulate=3, bfloat16=True).loss) == 2


class Kept:
    """A sampler that holds an array and a dictionary."""

    def __init__(self, place: float) -> None:
        self.points, self.more = np.full((100, 2), place), {"place": place}

    def sample(self, n, generator=None):
        return torch.from_numpy(self.points[0]).float() + torch.randn(n, 2, generator=generator)


class Wide(EightGaussians):
    """The same with a number of its own."""

    def __init__(self, width: float) -> None:
        self.width = width


SAME_SHAPES = {
    "box": [lambda box=box: MODELS["spline"](layers=2, hidden=(8,), box=box) for box in (4.0, 1.5)],
    "heads": [lambda heads=heads: attentive(heads) for heads in (1, 2)],
    "steps": [lambda steps=steps: MODELS["ffjord"](hidden=(4, 4), steps=steps) for steps in (4, 8)],
    "bound": [lambda bound=bound: bounded(bound) for bound in (1.0, 2.0)],
    "alpha": [
        lambda alpha=alpha: Flow(Compose([Scale(2), Logit(alpha)]), StandardNormal(2)) for alpha in (0.1, 0.2)
    ],
    "low": [lambda low=low: Flow(Compose([Scale(2)]), UniformBox(2, low, 9.0)) for low in (-9.0, -8.0)],
    "loc": [lambda loc=loc: Flow(Compose([Scale(2)]), two_clouds(loc)) for loc in (2.0, 6.0)],
    "df": [lambda df=df: Flow(Compose([Scale(2)]), StudentT(df * torch.ones(2))) for df in (2.0, 3.0)],
}


def two_clouds(place):
    """A base of torch's, whose parts have private names."""
    clouds = Independent(Normal(torch.tensor([[place, 0.0], [-place, 0.0]]), 1.0), 1)
    return MixtureSameFamily(Categorical(torch.ones(2)), clouds)


def attentive(heads):
    return MODELS["flowpp"](event_shape=(1, 2, 2), layers=1, hidden=(4,), components=2, heads=heads)


def bounded(bound):
    return Flow(AffineCoupling(alternating_mask(2, 0), MLP(1, 2, (8,)), bound), StandardNormal(2))


@pytest.mark.parametrize("name", SAME_SHAPES)
def test_a_model_with_the_same_tensors_but_other_numbers_is_refused(tmp_path, name):
    one, other = SAME_SHAPES[name]
    path, points = tmp_path / "run.pt", torch.rand(8, *one().event_shape) / 2
    fit(one(), points, steps=1, checkpoint=path, **QUIET)
    assert {n: p.shape for n, p in one().named_parameters()} == {
        n: p.shape for n, p in other().named_parameters()
    }
    with pytest.raises(CheckpointError, match=rf"another model: .*{name}"):
        fit(other(), points, steps=1, checkpoint=path, **QUIET)
    with pytest.raises(CheckpointError, match="another model"):
        load_parameters(other(), path)
    assert len(fit(one(), points, steps=1, checkpoint=path, **QUIET).loss) == 1


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (Wide(1.0), Wide(2.0), "data was (Wide(width=1.0), None) and is (Wide(width=2.0), None)"),
        (EightGaussians(), TwoMoons(), "data was (EightGaussians(), None) and is (TwoMoons(), None)"),
        (plain(), MODELS["realnvp"](layers=2, hidden=(8,)), "data was (Flow with checksum"),
        (Kept(0.0), Kept(9.0), "more=((place, 0.0)))"),
    ],
)
def test_another_sampler_is_refused(tmp_path, one, other, words):
    trained(tmp_path / "run.pt", data=one)
    getattr(one, "entropy", None)  # what a sampler remembers of its own is no setting
    assert len(trained(tmp_path / "run.pt", data=one).loss) == 2
    with pytest.raises(CheckpointError, match=re.escape(words)):
        trained(tmp_path / "run.pt", data=other)


def test_two_runs_do_not_write_one_file(tmp_path):
    path, flow = tmp_path / "run.pt", plain()

    def meanwhile(*_):
        with pytest.raises(CheckpointError, match=r"run.pt is being written already"):
            trained(path)

    flow.register_forward_pre_hook(meanwhile)
    trained(path, flow=flow)
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert len(trained(path).loss) == 2


def test_a_lock_that_a_killed_run_left_behind_holds_nobody_up(tmp_path):
    (tmp_path / "run.pt.lock").touch()
    assert len(trained(tmp_path / "run.pt").loss) == 2


def test_one_file_cannot_be_both(tmp_path):
    with pytest.raises(ValueError, match="is being written already"):
        trained(tmp_path / "run", history=tmp_path / ".." / tmp_path.name / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("checkpoint", "checkpoint must be a file, and"),
        ("history", "history must be a file, and"),
    ],
)
def test_a_folder_or_a_device_is_no_file(tmp_path, name, words):
    for path in (tmp_path, "/dev/full"):
        with pytest.raises(ValueError, match=words):
            fit(plain(), INTEGERS, steps=1, **{name: path}, **QUIET)


@pytest.mark.parametrize("name", ["checkpoint", "history", "samples"])
def test_a_missing_drive_is_named_at_once(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="drive"):
        fit(plain(), INTEGERS, steps=1, **{name: tmp_path / "drive" / "run"}, **QUIET)


def test_a_foreign_file_is_refused_and_never_overwritten(tmp_path):
    notes = tmp_path / "notes"
    notes.write_text("step,what I thought\n")
    with pytest.raises(CheckpointError, match="notes is no checkpoint of flowlib"):
        trained(notes)
    assert notes.read_text() == "step,what I thought\n"
