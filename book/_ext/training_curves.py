"""The figure of the page of what training costs: how fast each model learns."""

from __future__ import annotations

from io import BytesIO
from statistics import mean
from typing import Any

from benchmark_page import image
from docutils import nodes
from matplotlib.figure import Figure

from flowlib.plots import COLOURS


def by_bits(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The models, the best first."""
    return sorted(training["models"].values(), key=lambda model: mean(model["test_bits"]))


def curves(training: dict[str, Any]) -> nodes.Node:
    """The held-out images' bits per dimension, against steps and against seconds."""
    figure = Figure(figsize=(6.4, 8.2), facecolor="white", layout="constrained")
    for ax, per_step in zip(figure.subplots(2), (False, True), strict=True):
        colours = {True: iter(COLOURS), False: iter(COLOURS)}
        for model in training["models"].values():
            steps, bits = zip(*model["curve"], strict=True)
            unit = model["step_ms"] / 1e3 if per_step else 1
            style = "--" if model["in_a_row"] else "-"
            label = None if per_step else model["title"]
            colour = next(colours[model["in_a_row"]])
            ax.plot([unit * at for at in steps], bits, style, color=colour, linewidth=1.8, label=label)
        ends = [model["curve"][-1][1] for model in training["models"].values()]
        ax.set_ylim(min(ends) - 0.05, max(ends) + 0.6)
        ax.set_ylabel("bits per dimension")
        ax.grid(color="0.9")
    steps_axis, seconds_axis = figure.axes
    steps_axis.set_title("Held-out digits, by steps")
    steps_axis.set_xlabel("steps")
    seconds_axis.set_title("The same, by seconds of training")
    seconds_axis.set_xlabel("seconds")
    seconds_axis.set_xscale("log")
    seconds_axis.xaxis.set_major_formatter("{x:g}")
    figure.legend(
        loc="outside lower center", ncols=3, frameon=False, title="solid: images, dashed: pixels in a row"
    )
    out = BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    ends = "; ".join(
        f"{model['title']} {model['curve'][-1][1]:.2f} after {model['seconds']:.0f} s"
        for model in by_bits(training)
    )
    words = f"Two panels of falling curves, one for each model. At their ends: {ends}."
    return image(out.getvalue(), words)
