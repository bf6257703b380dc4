"""What one sees of a training: its history, a bar, pictures of samples on the way, and the result."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from flowlib.bijection import Compose
from flowlib.flow import Flow
from flowlib.layers.dequantize import bits_per_dim, levels_of
from flowlib.train.checkpoint import replacing

COLUMNS = ["step", "loss", "lr", "grad_norm", "validation"]


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

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line for each step: its number from 1, loss, lr, grad_norm, and validation or nothing.

        The file is replaced as a whole, so whoever reads it while training goes on never sees half of it.
        Numbers are written with all their digits: reading them gives the same numbers.

        Raises:
            OSError: if the file cannot be written.
        """
        validation = dict(self.validation)
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        steps = zip(self.loss, self.lr, self.grad_norm, strict=True)
        rows.writerows([k, *row, validation.get(k)] for k, row in enumerate(steps, start=1))
        with replacing(Path(path)) as file:
            file.write(text.getvalue().encode())

    def packed(self) -> dict[str, Any]:
        """The history as tensors: a checkpoint would take far longer to write with a million numbers."""
        columns = {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in COLUMNS[1:]}
        return {**columns, "seconds": self.seconds}

    @staticmethod
    def unpacked(packed: dict[str, Any]) -> History:
        """The history that was :meth:`packed`."""
        lists = {name: packed[name].tolist() for name in COLUMNS[1:]}
        lists["validation"] = [(int(step), value) for step, value in lists["validation"]]
        return History(**lists, seconds=packed["seconds"])


def progress_bar(flow: Flow, steps: int, start: int, wanted: bool) -> Callable[[float], None]:
    """A function to call with each step's loss, which moves a bar of tqdm if that is wanted and installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        wanted = False
    if not wanted:
        return lambda loss: None
    # only the likelihood of integers counts in bits: a density's depends on the unit of its points
    integers = levels_of(flow) is not None
    unit, nats = ("bits per dimension", flow.event_shape.numel() * math.log(2)) if integers else ("nats", 1.0)
    bar = tqdm(total=steps, initial=start)  # it closes with the function

    def advance(loss: float) -> None:
        bar.set_postfix_str(f"loss {loss / nats:.3f} {unit}", refresh=False)
        bar.update()

    return advance


@torch.no_grad()
def mean_nats(flow: Flow, x: Tensor, context: Tensor | None = None, seed: int = 0) -> float:
    r"""The mean of :math:`-\log p` over points, in nats; the same draws each time, in eval mode."""
    here, was_training, total = flow.base.device, flow.training, torch.zeros(())
    rows = [None] * len(x) if context is None else context.split(256)
    flow.eval()
    with torch.random.fork_rng([here] if here.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        for part, row in zip(x.split(256), rows, strict=False):
            total = total + flow.log_prob(part.to(here), None if row is None else row.to(here)).double().sum()
    flow.train(was_training)
    return -float(total) / len(x)


def blame(
    error: FloatingPointError,
    record: History,
    steps: int,
    flow: Flow,
    batch: Sequence[tuple[Tensor, Tensor | None]],
    risk: Callable[..., Tensor],
    log_density: Callable[[Tensor], Tensor] | None = None,
) -> FloatingPointError:
    """The error with what is to blame for it, found by following the pieces of the batch once more.

    They go from the data to the base, or with a ``log_density`` from the latents to that.
    """
    found = ""
    for points, context in batch:
        found = found or _culprit(flow, points, context, log_density)
    if not found:
        named = {name: p for name, p in flow.named_parameters() if p.requires_grad}
        loss = torch.stack([risk(flow, *piece) for piece in batch]).sum()
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        bad = [
            name for name, g in zip(named, gradients, strict=True) if g is not None and not g.isfinite().all()
        ]
        found = f"The gradient of {bad[0]} is not finite. " if bad else ""
    return FloatingPointError(
        f"Step {len(record.loss) + 1} of {steps}: {error}. {found}The parameters are those from before this "
        "step. Try a smaller lr or clip, and look at the data."
    )


@torch.no_grad()
def _culprit(flow: Flow, points: Tensor, context: Tensor | None, log_density: Any) -> str:
    """The first layer whose result is not finite, else the density at their end."""
    way, last, name = "inverse", flow.base.log_prob, f"the base {type(flow.base).__name__}"
    layers = list(enumerate(flow.bijection if isinstance(flow.bijection, Compose) else [flow.bijection]))
    if log_density:
        way, last, name = "forward", log_density, "log_density"
    for k, layer in layers if log_density else reversed(layers):
        points, log_det = getattr(layer, way)(points, context)
        if bad := int((~(points.flatten(1).isfinite().all(1) & log_det.isfinite())).sum()):
            return (
                f"Layer {k} ({type(layer).__name__}) is the first whose {way} is not finite, in {bad} of "
                f"{len(points)} points. "
            )
    bad = int((~last(points).isfinite()).sum())
    return f"Every layer is finite, but {name} is not, in {bad} of {len(points)} points. " if bad else ""


def pictures(
    flow: Flow, folder: str | os.PathLike[str], context: Tensor | None
) -> Callable[[Flow, int], None]:
    """A function that writes a PNG file: a sheet of images, or points, always from the same latents."""
    shape = tuple(flow.event_shape)
    images = len(shape) == 3 and shape[0] in (1, 3)
    if not images and shape != (2,):
        raise ValueError(
            "samples can be drawn of images (C, H, W), with C = 1 or 3, and of points on the plane; "
            f"this flow's points have shape {shape}. Leave samples out."
        )
    import flowlib.plots  # noqa: F401  # its sentence where matplotlib is missing, before the training

    where, n = Path(folder), 64 if images else 1000
    if where.is_file() or not where.parent.is_dir():
        raise ValueError(
            f"samples={str(folder)!r} must be a folder, or a new name in one that exists: make that first, "
            "or mount the drive that should hold it."
        )
    where.mkdir(exist_ok=True)
    rows = None if context is None else context[:n].to(flow.base.device)
    latents = flow.base.sample(n if rows is None else len(rows), torch.Generator().manual_seed(0))

    @torch.no_grad()
    def draw(in_use: Flow, step: int) -> None:
        was_training = in_use.training
        try:
            points = in_use.eval().decode(latents, rows)
            with replacing(where / f"step_{step:06d}.png") as file:
                file.write(_png(in_use, points, f"after {step} steps"))
        except (OSError, RuntimeError, ValueError) as error:  # no picture is worth a training
            warnings.warn(f"No picture of the samples after step {step}: {error}", stacklevel=2)
        finally:
            in_use.train(was_training)

    return draw


def _png(flow: Flow, points: Tensor, title: str, columns: int = 8) -> bytes:
    """Images as a sheet, or points on the plane; what is not finite is black, or left out."""
    from flowlib import plots

    if points.dim() == 2:
        axes = plots.samples(points[points.isfinite().all(1)])
    else:
        levels = levels_of(flow)
        high = None if levels is None else levels - 1
        axes = plots.images(points.nan_to_num(0.0), columns=columns, high=high)
    axes.set_title(title)
    file, figure = io.BytesIO(), cast(Any, axes.figure)
    figure.savefig(file, format="png")
    plots.plt.close(figure)
    return file.getvalue()


@torch.no_grad()
def write_result(folder: Path, flow: Flow, nats: float, temperature: float, facts: dict[str, Any]) -> str:
    r"""Write ``result.json`` and ``samples.png`` of a trained flow; return the result as a sentence.

    .. math:: \mathrm{nats} = -\frac1n \sum_{i=1}^n \log p(x_i), \qquad
        \mathrm{bits\ per\ dimension} = \frac{\mathrm{nats}}{d \log 2}

    Bits per dimension are given for images alone: those of a density depend on the unit of its points.
    Samples are :math:`f(Tz)` with the temperature T; of a class-conditional flow each column is a class.

    Raises:
        OSError: if a file cannot be written.
    """
    levels, device, classes = levels_of(flow), flow.base.device, flow.context_features
    bits = None if levels is None else float(bits_per_dim(torch.tensor(-nats), flow.event_shape))
    columns = min(classes, 10) or 10
    n = 2000 if levels is None else 10 * columns
    context = torch.eye(classes)[torch.arange(n) % columns].to(flow.base.anchor) if classes else None
    points = flow.decode(temperature * flow.base.sample(n, torch.Generator().manual_seed(0)), context)
    result = {
        **facts,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
        "test_nats": nats,
        "test_bits_per_dimension": bits,
        "log_prob_is_exact": flow.is_exact,
    }
    picture = folder / "samples.png"
    try:
        with replacing(picture) as file:
            file.write(_png(flow, points, f"samples at temperature {temperature:g}", columns))
        with replacing(folder / "result.json") as file:
            file.write((json.dumps(result, indent=2) + "\n").encode())
    except OSError as error:
        raise OSError(
            f"The result could not be written to {folder}: {error}. The checkpoint there is safe: make room "
            "and run the same command again."
        ) from None
    number = (
        f"{nats:.3f} nats" if bits is None else f"{bits:.3f} bits per dimension, {nats:.2f} nats an image"
    )
    return (
        f"Negative log-likelihood of the {facts['test_points']} test points: {number}; "
        f"{facts['steps_taken']} steps in {facts['seconds']:.0f} s. Samples: {picture}."
    )


__all__ = ["History"]
