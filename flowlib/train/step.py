"""What every training is made of: its arguments, its random numbers, its steps, and Ctrl-C between them."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from flowlib.flow import Flow
from flowlib.nets import Conditioner
from flowlib.train.report import History


def check_arguments(flow: Flow, lr: float, clip: float | None, **whole: Any) -> None:
    """Refuse what is no flow, and numbers that make no training; ``whole`` must be whole and positive."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flow must be a flowlib.Flow and came as {type(flow).__name__}.")
    for name, value in whole.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more, and came as {value!r}.")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be a positive number and came as {lr!r}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a positive number, or None for no clipping, and came as {clip!r}.")


def optimiser_of(flow: Flow, lr: float) -> torch.optim.Adam:
    """Adam for all parameters that are not frozen, in one pass over them."""
    parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("This flow has no parameters that require a gradient: there is nothing to train.")
    return torch.optim.Adam(parameters, lr=lr, fused=True)


def stream(seed: int, number: int, which: int = 0) -> int:
    """A seed for one epoch or step: 0 is the stream of the data, 1 + r that of the layers in process r."""
    return (1_000_003 * seed + 10_000_019 * which + number) % 2**32


def seed_layers(flow: Flow, number: int) -> None:
    """Seed the generators that layers draw from; ``torch.manual_seed`` would take a hundred times as long."""
    torch.default_generator.manual_seed(number)
    if flow.base.device.type == "cuda":
        with torch.cuda.device(flow.base.device):
            torch.cuda.manual_seed(number)


def descend(
    optimiser: torch.optim.Optimizer,
    losses: Iterable[Tensor],
    record: History,
    lr: float,
    steps: int,
    clip: float | None,
    pressed: threading.Event,
    ranks: int = 1,
) -> bool:
    """One update by the sum of the losses, along a cosine; return whether any process was told to stop."""
    rate = 0.5 * lr * (1 + math.cos(math.pi * len(record.loss) / steps))
    optimiser.param_groups[0]["lr"] = rate
    optimiser.zero_grad()
    parts = []
    for loss in losses:
        loss.backward()
        parts.append(loss.detach())
    total = torch.stack(parts).sum()
    wish, parameters = torch.full_like(total, pressed.is_set()), optimiser.param_groups[0]["params"]
    if ranks > 1:  # in one message: the loss, the wish to stop, and the gradient
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        message = torch.cat([part.flatten() for part in (total, wish, *gradients)])
        distributed.all_reduce(message)
        total, wish, *means = (message / ranks).split([1, 1, *(p.numel() for p in parameters)])
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = mean.view_as(parameter)
    norm = nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
    # the step's one wait for the device: what is not finite must be known before the update
    value, length, wish_of_any = torch.stack([total.squeeze(), norm, wish.squeeze()]).tolist()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss is {value}")
    if not math.isfinite(length):
        raise FloatingPointError(f"the gradient has length {length}")
    optimiser.step()
    record.loss.append(value)
    record.lr.append(rate)
    record.grad_norm.append(length)
    return pressed.is_set() if ranks == 1 else wish_of_any > 0


@contextmanager
def in_training(flow: Flow, bfloat16: bool = False) -> Iterator[threading.Event]:
    """Train mode, with the conditioners in bfloat16 if wanted, and the caller's random state after it.

    Ctrl-C sets the event that comes out, so that it cuts no step in two; a second one ends the body at once.
    Another handler than Python's own stays as it is, and so do threads, which get no signals.
    """
    nets = [module for module in flow.modules() if isinstance(module, Conditioner)] if bfloat16 else []
    if bfloat16 and not nets:
        raise ValueError(
            "bfloat16=True is for the networks inside a flow, and this flow has none; leave it out."
        )
    pressed, usual, here = threading.Event(), signal.default_int_handler, flow.base.device

    def press(*_: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, usual)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is usual
    try:
        with torch.random.fork_rng([here] if here.type == "cuda" else []):
            if ours:
                signal.signal(signal.SIGINT, press)
            for net in nets:
                net.autocast_dtype = torch.bfloat16
            flow.train()
            yield pressed
    except KeyboardInterrupt:  # the steps so far are not thrown away
        pass
    finally:
        if ours:
            signal.signal(signal.SIGINT, usual)
        for net in nets:
            net.autocast_dtype = None
        flow.zero_grad()
        flow.eval()
