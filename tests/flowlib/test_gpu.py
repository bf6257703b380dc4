"""What only a GPU can show: ``pytest -m gpu``. The property tests of ``test_models.py`` run there as well.

``FLOWLIB_TEST_DEVICE=cpu pytest -m gpu tests/flowlib/test_gpu.py`` runs the same lines without one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

import flowlib.train.loop
from flowlib import Flow, fit
from flowlib.data import load_dataset
from flowlib.models import MODELS
from flowlib.train import History
from flowlib.train.command import main
from flowlib.train.flow_for import flow_for
from tests.flowlib.test_bfloat16 import CONDITIONED, drift
from tests.flowlib.test_models import Case

DEVICE = os.environ.get("FLOWLIB_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]
QUIET = {"progress": False, "device": DEVICE}


def digits_flow() -> tuple[Flow, torch.Tensor]:
    """A small Glow and some digits, on the CPU; ``fit`` moves them."""
    data = load_dataset("digits")
    torch.manual_seed(0)
    return flow_for(data, "glow", layers=2, hidden=(16,)), data.train[:256].float()


def continuous_flow() -> tuple[Flow, torch.Tensor]:
    """The same with the noise already added: compiled code would draw other numbers."""
    generator = torch.Generator().manual_seed(0)
    images = load_dataset("digits").train[:256]
    torch.manual_seed(0)
    flow = MODELS["glow"](event_shape=(1, 8, 8), layers=2, scales=1, hidden=(16,))
    return flow, (images + torch.rand(images.shape, generator=generator)) / 17


def losses_are_close(one: History, other: History) -> bool:
    """Equal up to the order of a GPU's sums, which Adam makes larger step by step."""
    return torch.allclose(torch.tensor(one.loss), torch.tensor(other.loss), rtol=1e-3)


def lost_after(steps: int) -> Callable[..., bool]:
    """The loop's step, which fails when it has run so often."""
    step, left = flowlib.train.loop.descend, iter(range(steps))

    def failing(*arguments):
        if next(left, None) is None:
            raise ConnectionError("the session is lost")
        return step(*arguments)

    return failing


@pytest.mark.parametrize("which", CONDITIONED, ids="-".join)
def test_bfloat16_moves_log_prob_little(which):
    assert drift(Case(*which, torch.float32, DEVICE)) <= 2


def test_a_fit_on_the_device_is_that_on_the_cpu():
    flow, images = continuous_flow()  # what a layer draws in training, it draws where it is
    here = fit(flow, images, steps=10, batch_size=64, progress=False)
    flow, images = continuous_flow()
    there = fit(flow, images, steps=10, batch_size=64, **QUIET)
    assert flow.base.device.type == DEVICE
    assert images.device.type == "cpu"
    assert losses_are_close(here, there)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the compiler's, about torch's own functions
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_a_compiled_fit_learns_the_same(bfloat16):
    flow, images = continuous_flow()
    plain = fit(flow, images, steps=10, batch_size=64, bfloat16=bfloat16, **QUIET)
    flow, images = continuous_flow()
    compiled = fit(flow, images, steps=10, batch_size=64, bfloat16=bfloat16, compile=True, **QUIET)
    # bfloat16 rounds at other places in fused code
    rtol = 5e-3 if bfloat16 else 1e-3
    torch.testing.assert_close(torch.tensor(compiled.loss), torch.tensor(plain.loss), rtol=rtol, atol=0)
    assert compiled.loss[-1] < compiled.loss[0]
    assert flow.log_prob(images.to(DEVICE)).isfinite().all()


def test_bfloat16_reaches_the_same_likelihood():
    flow, images = digits_flow()
    exact = fit(flow, images, steps=60, batch_size=64, **QUIET)
    flow, images = digits_flow()
    rounded = fit(flow, images, steps=60, batch_size=64, bfloat16=True, **QUIET)
    ends = [torch.tensor(history.loss[-10:]).mean() for history in (exact, rounded)]
    assert abs(ends[0] - ends[1]) < 0.02 * ends[0]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch):
    flow, images = digits_flow()
    settings = {"steps": 12, "batch_size": 64, "ema": 0.9, "checkpoint_every": 4, **QUIET}
    whole = fit(flow, images, **settings)
    again, images = digits_flow()
    # the session is lost after step 6, two steps after the checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(flowlib.train.loop, "descend", lost_after(6))
        with pytest.raises(ConnectionError):
            fit(again, images, checkpoint=tmp_path / "run.pt", **settings)
    again, images = digits_flow()
    resumed = fit(again, images, checkpoint=tmp_path / "run.pt", **settings)
    assert losses_are_close(whole, resumed)
    for one, other in zip(flow.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_command_trains_on_the_device(tmp_path):
    arguments = ["--data", "two_moons", "--model", "realnvp", "--steps", "5", "--samples-every", "0"]
    assert main([*arguments, "--device", DEVICE, "--bfloat16", "--out", str(tmp_path / "run")]) == 0
