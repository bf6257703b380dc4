"""The Glow that runs on the book's start page: ``python -m benchmarks.glow_in_the_book``, five minutes.

Lecture 9's class-conditional Glow of the 8 × 8 digits, trained for longer, with a moving average of the
parameters. A third of its digits are moved by a pixel, since a reader who draws one does not place it as the
data are. Seed 0 is what the page shows, whatever the others give: it is rounded to bytes and written to
``book/_static/figures/glow/weights.js``, with a still picture of its samples. One thread, float32.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from benchmarks import glow_weights
from benchmarks.experiment import baselines, publish
from flowlib import MODELS, Compose, Dequantize, Flow, Logit, bits_per_dim, fit, plots
from flowlib.data import digits

STATIC = Path(__file__).parents[1] / "book" / "_static"
SCRIPT = STATIC / "figures" / "glow" / "weights.js"
PICTURE = STATIC / "glow.png"
SEEDS, SHIPPED = range(3), 0
SETTINGS: dict[str, Any] = {"steps": 1600, "batch_size": 128, "lr": 1e-2, "ema": 0.995, "progress": False}
LECTURE: dict[str, Any] = {"steps": 150, "batch_size": 128, "lr": 1e-2, "progress": False}
ASIDE = [(0, 1), (0, -1), (1, 0), (-1, 0)]  # rows down, columns to the right
PLACES = [(0, 0)] * 8 + ASIDE  # one training image in three stands a pixel aside
DRAWS = 8  # of dequantisation noise for each held-out digit


def make(hidden: int = 24) -> Flow:
    """Return a new class-conditional Glow for 8 × 8 images of whole numbers 0 … 16, in float32."""
    sizes: dict[str, Any] = {"scales": 2, "layers": 4, "hidden": (hidden,), "context_features": 10}
    inner = MODELS["glow"]((1, 8, 8), **sizes)
    return Flow(Compose([*inner.bijection, Logit(0.05), Dequantize(17)]), inner.base, 10).float()


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """The images so many pixels further down and to the right; what comes in is white."""
    return pad(images, (1, 1, 1, 1))[:, :, 1 - down : 9 - down, 1 - right : 9 - right]


@torch.no_grad()
def scores(flow: Flow, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Bits per dimension, an upper bound as dequantisation gives it, and how many digits Bayes' rule names.

    ``told`` is of the image given its label, ``untold`` of the image alone.
    """
    told = untold = named = 0.0
    for draw in range(DRAWS):
        log_p = []
        for label in range(10):
            torch.manual_seed(draw)  # the same noise for every label
            context = one_hot(torch.full_like(labels, label), 10).to(images)
            log_p.append(flow.log_prob(images, context))
        each = torch.stack(log_p, 1)
        told += bits_per_dim(each.gather(1, labels[:, None]).mean(), 64).item() / DRAWS
        untold += bits_per_dim((each.logsumexp(1) - math.log(10)).mean(), 64).item() / DRAWS
        named += (each.argmax(1) == labels).double().mean().item() / DRAWS
    return {"told": told, "untold": untold, "named": named}


def one_run(seed: int, settings: dict[str, Any], hidden: int, places: list[tuple[int, int]]) -> Flow:
    """Train one Glow on the training digits, a copy of each moved to each of the places."""
    images, labels = digits("train")
    copies = torch.cat([moved(images.float(), *by) for by in places])
    torch.manual_seed(seed)
    flow = make(hidden)
    fit(flow, copies, context=one_hot(labels, 10).float().repeat(len(places), 1), seed=seed, **settings)
    return flow


def sample_sheet(flow: Flow) -> None:
    """Draw five latents under each of the ten labels, for readers without scripts and for paper."""
    z = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(5)).repeat_interleave(10, 0)
    labels = torch.arange(10).repeat(5)
    with torch.no_grad():
        drawn = flow.decode(0.7 * z.to(flow.base.anchor), one_hot(labels, 10).to(flow.base.anchor))
    _, ax = plt.subplots(figsize=(6, 3))
    plots.images(drawn, ax, columns=10, low=16, high=0)
    ax.axis("off")
    plt.savefig(PICTURE, dpi=100, bbox_inches="tight", pad_inches=0.05)


def run() -> dict[str, Any]:
    """Train every seed, write the script and the picture of the one that is shipped."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # as in the lecture: a seed gives the same start
    (images, _), (new_images, new_labels) = digits("train"), digits("test")
    new_images, runs = new_images.float(), []
    for name, settings, hidden, places in (
        ("as in lecture 9", LECTURE, 32, PLACES[:1]),
        ("in the book", SETTINGS, 24, PLACES),
    ):
        for seed in SEEDS:
            start = time.process_time()
            flow = one_run(seed, settings, hidden, places)
            row = {"model": name, "seed": seed, "seconds": round(time.process_time() - start)}
            runs.append(row | scores(flow, new_images, new_labels))
            print(runs[-1], flush=True)
            if name == "in the book" and seed == SHIPPED:
                shipped = flow
    layers = glow_weights.before_dequantisation(shipped)
    glow_weights.fill(layers, glow_weights.describe(layers))
    found = scores(shipped, new_images, new_labels)
    aside_scores = [scores(shipped, moved(new_images, *by), new_labels)["named"] for by in ASIDE]
    facts = {"command": "python -m benchmarks.glow_in_the_book", **found}
    SCRIPT.write_text(glow_weights.script(shipped, facts), "utf-8")
    sample_sheet(shipped)
    return {
        "baselines": baselines(images.float(), new_images),
        "runs": runs,
        "shipped": {"seed": SHIPPED, **found, "named one pixel aside": sum(aside_scores) / len(aside_scores)},
    }


if __name__ == "__main__":
    publish("glow_in_the_book", __doc__, run)
