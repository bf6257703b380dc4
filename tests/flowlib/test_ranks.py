"""Two processes on one batch are one process: the same losses and parameters, saved and resumed as one."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import distributed

from flowlib import fit
from flowlib.models import MODELS
from flowlib.train import load_checkpoint
from tests.flowlib import forks

POINTS = torch.randn(70, 2, generator=torch.Generator().manual_seed(0)).double() * 2 + 1
IMAGES = torch.randn(70, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double() * 2 + 1


def build(name, seed):
    torch.manual_seed(seed)
    flow = MODELS["realnvp" if name == "unused" else name]().double()
    if name == "unused":  # a parameter that the likelihood does not see
        flow.spare = torch.nn.Parameter(torch.zeros(()).double())
    return flow, POINTS if flow.event_shape == (2,) else IMAGES


def train(flow, data, **arguments):
    arguments = {"steps": 6, "batch_size": 32, "lr": 0.01, "progress": False, **arguments}
    history = fit(flow, data, **arguments)
    return flow.state_dict(), replace(history, seconds=0.0)


def as_one_of_two(rank, folder, jobs):
    """Join the other process; do the jobs, one after the other, and write down where each ended."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    ends = {}
    for label, (name, arguments, interrupt) in jobs.items():
        flow, data = build(name, seed=rank)  # different parameters: those of rank 0 hold
        if interrupt == rank:
            calls = iter(range(100))
            flow.register_forward_pre_hook(
                lambda *_, calls=calls: signal.raise_signal(signal.SIGINT) if next(calls) == 3 else None
            )
        ends[label] = train(flow, data, **arguments)
    torch.save(ends, folder / f"end-{rank}")
    distributed.destroy_process_group()


def together(folder, jobs):
    assert forks.run_together(as_one_of_two, 2, folder, jobs) == [0, 0]
    return [torch.load(folder / f"end-{rank}", weights_only=False) for rank in range(2)]


def assert_close(one, other, tol=1e-12):
    (state, history), (other_state, other_history) = one, other
    assert history.loss == pytest.approx(other_history.loss, abs=tol)
    assert history.grad_norm == pytest.approx(other_history.grad_norm, abs=10 * tol)
    assert history.interrupted == other_history.interrupted
    for name, value in state.items():
        torch.testing.assert_close(value, other_state[name], rtol=0, atol=tol)


def assert_equal(one, other):
    assert one[1] == other[1]
    assert all(torch.equal(value, other[0][name]) for name, value in one[0].items())


def test_two_ranks_equal_one_for_every_model(tmp_path):
    # Adam divides a gradient by its size + 1e-8: where it should be 0, rounding grows by lr / 1e-8 = 1e3
    arguments = {"steps": 2, "lr": 1e-5}
    names = [*MODELS, "unused"]
    jobs = {name: (name, arguments, None) for name in names}
    first, second = together(tmp_path, jobs)
    for name in names:
        assert_equal(first[name], second[name])
        flow, data = build(name, seed=0)
        if flow.is_exact:  # a layer that draws has a stream of its own in each process
            assert_close(first[name], train(flow, data, **arguments), tol=1e-11)
    started = [value for name, value in first["glow"][0].items() if name.endswith("started")]
    assert started
    assert all(started)


def test_every_option_and_the_way_from_one_process_to_two_and_back(tmp_path):
    path = tmp_path / "run.pt"
    options = {"validation": POINTS[:20] + 1, "validate_every": 2, "ema": 0.5, "accumulate": 2}
    flow, data = build("realnvp", seed=0)
    expected = train(flow, data, **options)
    saving = {**options, "checkpoint": path, "history": tmp_path / "run.csv"}
    # two processes until Ctrl-C in the second; then one, until Ctrl-C; then two again
    first, second = together(tmp_path, {"begun": ("realnvp", saving, 1)})
    assert_equal(first["begun"], second["begun"])
    assert first["begun"][1].interrupted
    assert load_checkpoint(path)["step"] == len(first["begun"][1].loss) == 2
    flow, _ = build("realnvp", seed=3)
    calls = iter(range(100))
    flow.register_forward_pre_hook(
        lambda *_: signal.raise_signal(signal.SIGINT) if next(calls) == 3 else None
    )
    _, history = train(flow, data, **saving)
    assert history.interrupted
    assert load_checkpoint(path)["step"] == len(history.loss) == 4
    first, second = together(tmp_path, {"ended": ("realnvp", saving, None)})
    assert_equal(first["ended"], second["ended"])
    assert_close(first["ended"], expected)
