"""The end of a training from the command line: test likelihood, samples, and both in files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast

from flowlib import plots  # first, for its sentence where matplotlib is missing  # isort: skip
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from flowlib.flow import Flow
from flowlib.layers.dequantize import bits_per_dim, levels_of
from flowlib.train.files import replacing
from flowlib.train.history import History
from flowlib.train.validation import Validation


def write_result(
    folder: Path,
    flow: Flow,
    test: Tensor,
    context: Tensor | None,
    history: History,
    temperature: float,
    settings: dict[str, Any],
) -> dict[str, Any]:
    r"""Measure a trained flow on its test points, and write ``result.json`` and ``samples.png``.

    .. math:: \mathrm{nats} = -\frac1n \sum_{i=1}^n \log p(x_i), \qquad
        \mathrm{bits\ per\ dimension} = \frac{\mathrm{nats}}{d \log 2}

    Bits per dimension are given for images alone: those of a density depend on the unit of its points.
    Pixels are dequantised with one draw, always the same, so that the numbers of two runs can be compared.
    Samples are :math:`f(Tz)` with the temperature T.

    Raises:
        OSError: if a file cannot be written.
    """
    levels = levels_of(flow)
    nats = Validation(flow, test, context, 256, 1, None, seed=0).measure(flow)
    bits = None if levels is None else float(bits_per_dim(torch.tensor(-nats), flow.event_shape))
    device = flow.base.device
    result = {
        **settings,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "steps_taken": len(history.loss),
        "seconds": round(history.seconds, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
        "test_points": len(test),
        "test_nats": nats,
        "test_bits_per_dimension": bits,
        "log_prob_is_exact": flow.is_exact,
    }
    picture = _picture(flow, levels, temperature)
    try:
        with replacing(folder / "samples.png", picture):
            pass
        with replacing(folder / "result.json", (json.dumps(result, indent=2) + "\n").encode()):
            pass
    except OSError as error:
        raise OSError(
            f"The result could not be written to {folder}: {error}. The checkpoint there is safe: make room "
            "and run the same command again."
        ) from None
    return result


def result_in_words(result: dict[str, Any], folder: Path) -> str:
    """One sentence for a person."""
    bits, nats = result["test_bits_per_dimension"], result["test_nats"]
    what = f"{nats:.3f} nats" if bits is None else f"{bits:.3f} bits per dimension, {nats:.2f} nats an image"
    return (
        f"Negative log-likelihood of the {result['test_points']} test points: {what}; "
        f"{result['steps_taken']} steps in {result['seconds']:.0f} s. Samples: {folder / 'samples.png'}."
    )


@torch.no_grad()
def _picture(flow: Flow, levels: int | None, temperature: float) -> bytes:
    """A sheet of samples as PNG: 100 images, of each class in its own column, or 2,000 points."""
    classes = flow.context_features
    columns = min(classes, 10) or 10
    n = 2000 if levels is None else 10 * columns
    context = torch.eye(classes)[torch.arange(n) % columns].to(flow.base.anchor) if classes else None
    x = flow.decode(temperature * flow.base.sample(n, torch.Generator().manual_seed(0)), context)
    if levels is None:
        axes = plots.samples(x[x.isfinite().all(1)])
    else:  # a flow that was hardly trained may give NaN, which is black here
        axes = plots.images(x.nan_to_num(0.0), columns=columns, high=levels - 1)
    axes.set_title(f"samples at temperature {temperature:g}")
    file, figure = io.BytesIO(), cast(Figure, axes.figure)
    figure.savefig(file, format="png")
    plt.close(figure)
    return file.getvalue()


__all__ = ["result_in_words", "write_result"]
