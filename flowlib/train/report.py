"""What surrounds the steps of a training: its history, Ctrl-C, a bar, pictures, and what is to blame."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowlib.flow import Flow
from flowlib.layers.dequantize import levels_of
from flowlib.nets import Conditioner
from flowlib.train.checkpoint import PathLike, replacing


@dataclass(repr=False)
class History:
    r"""What happened at every step, in order.

    Attributes:
        loss: the loss of the step's batch, in nats, before the step's update.
        lr: the learning rate of the update.
        grad_norm: the length of the gradient before clipping.
        validation: pairs of a number of steps and the mean of :math:`-\log p` over the held-out points
            after them, in nats.
        seconds: the wall time of all steps; a resumed run adds to it.
        interrupted: whether the run was stopped by hand before its last step.

    Example:
        >>> History(loss=[3.0, 2.5, 2.0])
        History(3 steps, loss 3.000 → 2.000)
    """

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def __repr__(self) -> str:
        if not self.loss:
            return "History(no steps)"
        end = ", interrupted" if self.interrupted else ""
        return f"History({len(self.loss)} steps, loss {self.loss[0]:.3f} → {self.loss[-1]:.3f}{end})"

    def to_csv(self, path: PathLike) -> None:
        """Write one line for each step: its number from 1, loss, lr, grad_norm, and validation or nothing.

        The file is replaced as a whole, so whoever reads it while training goes on never sees half of it.
        Numbers are written with all their digits: reading them gives the same numbers.

        Raises:
            OSError: if the file cannot be written.
        """
        looks = dict(self.validation)
        steps = enumerate(zip(self.loss, self.lr, self.grad_norm, strict=True), start=1)
        rows = [f"{k},{loss},{lr},{norm},{looks.get(k, '')}" for k, (loss, lr, norm) in steps]
        with replacing(Path(path)) as file:
            file.write("\n".join(["step,loss,lr,grad_norm,validation", *rows, ""]).encode())


@contextmanager
def in_training(flow: Flow, record: History, bfloat16: bool = False) -> Iterator[None]:
    """Train mode, with the conditioners in bfloat16 if wanted, and the caller's random state after it.

    Ctrl-C is noted in the record, so that it cuts no step in two; a second one ends the body at once.
    Another handler than Python's own stays as it is, and so do threads, which get no signals.
    """
    nets = [module for module in flow.modules() if isinstance(module, Conditioner)] if bfloat16 else []
    usual, here = signal.default_int_handler, flow.base.device

    def press(*_: Any) -> None:
        record.interrupted = True
        signal.signal(signal.SIGINT, usual)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is usual
    try:
        # the steps before a Ctrl-C are not thrown away
        with torch.random.fork_rng([here] if here.type == "cuda" else []), suppress(KeyboardInterrupt):
            if ours:
                signal.signal(signal.SIGINT, press)
            for net in nets:
                net.autocast_dtype = torch.bfloat16
            flow.train()
            yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, usual)
        for net in nets:
            net.autocast_dtype = None
        flow.zero_grad()
        flow.eval()


def progress_bar(flow: Flow, steps: int, start: int, wanted: bool) -> Callable[[float], None]:
    """A function to call with each step's loss, which moves a bar of tqdm if that is wanted and installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        wanted = False
    if not wanted:
        return lambda loss: None
    unit, nats = getattr(flow, "unit", "nats"), 1.0
    # only the likelihood of integers counts in bits: a density's depends on the unit of its points
    if unit == "nats" and levels_of(flow) is not None:
        unit, nats = "bits per dimension", flow.event_shape.numel() * math.log(2)
    bar = tqdm(total=steps, initial=start)  # it closes with the function

    def advance(loss: float) -> None:
        bar.set_postfix_str(f"loss {loss / nats:.3f} {unit}", refresh=False)
        bar.update()

    return advance


@torch.no_grad()
def mean_nats(flow: Flow, x: Tensor, context: Tensor | None = None, seed: int = 0) -> float:
    r"""The mean of :math:`-\log p` over points, in nats, with the same draws each time; in eval mode."""
    flow.eval()
    here, total = flow.base.device, torch.zeros(())
    rows = [None] * len(x) if context is None else context.split(256)
    with torch.random.fork_rng([]):  # in eval mode all draws are the CPU's
        torch.default_generator.manual_seed(seed)
        for part, row in zip(x.split(256), rows, strict=False):
            total = total + flow.log_prob(part.to(here), None if row is None else row.to(here)).double().sum()
    return -float(total) / len(x)


@torch.no_grad()
def picture(
    flow: Flow, path: Path, context: Tensor | None, title: str, temperature: float = 1.0, columns: int = 8
) -> None:
    """Draw :math:`f(Tz)` in a PNG file, images or points on the plane, always of the same :math:`z`.

    The flow ends in eval mode.
    """
    from flowlib import plots

    flow.eval()
    n, levels = 1000 if len(flow.event_shape) == 1 else columns**2, levels_of(flow)
    rows = None if context is None else context[:n].to(flow.base.anchor)
    z = flow.base.sample(n if rows is None else len(rows), torch.Generator().manual_seed(0))
    x = flow.decode(temperature * z, rows)
    if x.dim() == 2:
        axes = plots.samples(x[x.isfinite().all(1)])
    else:
        axes = plots.images(x.nan_to_num(0.0), columns=columns, high=None if levels is None else levels - 1)
    axes.set_title(title)
    try:
        with replacing(path) as file:
            plots.plt.savefig(file, format="png")
    finally:
        plots.plt.close()


@torch.no_grad()
def blame(flow: Flow, batch: Sequence[tuple[Tensor, Tensor | None]]) -> str:
    """What is not finite first, found by following the pieces of the batch once more.

    They go from the data to the base, or of a flow with a ``log_density`` from the latents to that.

    Raises:
        ValueError: if it is the points, as the flow and its layers say it.
    """
    layers, last = list(enumerate(flow.layers)), getattr(flow, "log_density", None)
    way, name = "forward", "log_density"
    if last is None:
        way, last, name = "inverse", flow.base.log_prob, f"the base {type(flow.base).__name__}"
        layers.reverse()
        with torch.random.fork_rng([]):
            flow.eval()  # so that all look at the points, on a GPU too
            for points, context in batch:
                flow.log_prob(points, context)
            flow.train()
    for points, context in batch:
        context = flow._check_context(context, points.shape[0])  # the columns that are the layers'
        for k, layer in layers:
            points, log_det = getattr(layer, way)(points, context)
            wrong = ~(points.flatten(1).isfinite().all(1) & log_det.isfinite())
            if wrong.any():
                first = f"Layer {k} ({type(layer).__name__}) is the first whose {way} is not finite"
                return f"{first}, in {int(wrong.sum())} of {len(wrong)} points."
        if not last(points).isfinite().all():
            return f"Every layer is finite, but {name} is not."
    gradients = {name: p.grad for name, p in flow.named_parameters() if p.grad is not None}
    bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    return f"The gradient of {bad[0]} is not finite." if bad else ""
