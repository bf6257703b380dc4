"""The page of what training costs, written from ``benchmarks/results/*.json`` at build time.

``{training-costs} models`` is the table of the models on the digits, ``curves`` their figure, ``sizes`` what
was trained, ``scaling`` how a step of Glow grows, ``plan`` the arithmetic of a longer run, ``throughput``
what GPUs did, and ``machine`` where the rest ran.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from benchmark_page import FOLDER, NONE, table
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from training_curves import by_bits, curves

NO_GPU = (
    "*No GPU has been measured yet.* Who has one runs `python -m benchmarks.throughput --device cuda`: the "
    "file that it writes is all that this page needs."
)


def models(training: dict[str, Any]) -> str:
    rows = [
        [
            model["title"],
            f"{model['parameters']:,}",
            f"{model['seconds']:.0f}",
            f"{model['memory_mb']:.0f}",
            f"{model['sample_ms']:.0f}",
            with_spread(model["test_bits"]),
        ]
        for model in by_bits(training)
    ]
    return table(
        ["", "Parameters", "Training, s", "Memory, MB", "64 samples, ms", "Bits per dimension"], rows
    )


def with_spread(values: list[float]) -> str:
    """The mean, and half the distance of the largest from the smallest.

    Example:
        >>> with_spread([2.0, 2.01, 2.02])
        '2.010 ± 0.010'
    """
    return f"{mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"


def sizes(training: dict[str, Any]) -> str:
    lines = []
    for model in training["models"].values():
        given = dict(model["sizes"])
        hidden = " and ".join(map(str, given.pop("hidden")))
        sees = "the pixels in a row" if model["in_a_row"] else "the image"
        others = ", ".join(f"{name} {value}" for name, value in given.items())
        lines.append(
            f"- {model['title']}: {sees}, {others}, hidden {hidden}; {model['step_ms']:.0f} ms a step."
        )
    return "\n".join(lines)


def scaling(training: dict[str, Any]) -> str:
    base = training["scaling"]["base"]
    columns = ("parameters", "gflops", "step_ms", "memory_mb")
    rows = [
        [variant["changed"], *(f"× {variant[column] / base[column]:.1f}" for column in columns)]
        for name, variant in training["scaling"].items()
        if name != "base"
    ]
    return table(["Changed", "Parameters", "Operations", "Time of a step", "Memory"], rows)


def machine(training: dict[str, Any]) -> str:
    at = training["machine"]
    where = at.get("card") or f"one core ({at['processor']})"
    versions = f"Python {at['python']} and torch {at['torch']}"
    return f"Measured on {at['date']} on {where}, with {versions}, in float32."


def plan(training: dict[str, Any]) -> str:
    found = training["plan"]
    images = found["steps"] * found["batch_size"]
    total = 1e9 * found["gflops_per_image"] * images
    step = training["scaling"]["side"]  # on images of this size
    reached = step["gflops"] / step["step_ms"]  # 10⁹ in a thousandth of a second
    side = step["changed"].partition(" instead")[0]
    rates = {
        f"{reached:.2g}, reached here by one core on images of {side}": reached,
        "1": 1,
        "10": 10,
        "100": 100,
    }
    rows = [[name, in_words(total / (1e12 * rate))] for name, rate in rates.items()]
    words = (
        f"The Glow of `python -m flowlib.train --data cifar10` has {found['parameters']:,} parameters. "
        f"It takes {found['gflops_per_image']:.1f} · 10⁹ operations for each image, forwards and backwards. "
        f"{found['steps']:,} steps of {found['batch_size']} images come to {total / 1e15:.1f} · 10¹⁵."
    )
    return words + "\n\n" + table(["10¹² operations per second", "The whole run"], rows)


def in_words(seconds: float) -> str:
    """A time in the unit that suits it.

    Example:
        >>> in_words(90), in_words(7200), in_words(200_000)
        ('1.5 minutes', '2.0 hours', '2.3 days')
    """
    for unit, size in (("days", 86_400), ("hours", 3600)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.1f} minutes"


def throughput(runs: list[dict[str, Any]]) -> str:
    parts = [part for found in runs for part in one_card(found)]
    return "\n\n".join(parts) if parts else NO_GPU


def one_card(found: dict[str, Any]) -> list[str]:
    """The two tables of one run."""
    at = found["machine"]
    versions = ", ".join(f"{library} {version}" for library, version in at["versions"].items())
    where = f"**{at['card'] or at['processor']}**, {at['date']}, torch {at['torch']}; {versions}."
    if at["card"] and at["tf32"]:
        where += " Convolutions in float32 compute in TF32 where the card has it."
    header = ["Images per second", "GFLOP per image", "Share of the peak", "Memory, MB"]
    course = [
        [f"{entry['precision']}, {'compiled' if entry['compiled'] else 'eager'}", *cells(entry)]
        for entry in found["entries"].values()
        if entry["model"] == "course"
    ]
    others = [
        [entry["library"], *cells(entry)]
        for entry in found["entries"].values()
        if entry["model"] == "one scale"
    ]
    return [
        where,
        f"The course's Glow, {found['batch']} images of 32 × 32 in a batch:",
        table(["", *header], course),
        "A Glow on one scale, with the same networks in every library, float32 and eager:",
        table(["", *header], others),
    ]


def cells(entry: dict[str, Any]) -> list[str]:
    share = entry["share_of_peak"]
    return [
        f"{entry['images_per_second']:,.0f}",
        f"{entry['gflops_per_image']:.2f}",
        NONE if share is None else f"{100 * share:.1f} %",
        f"{entry['memory_mb']:,.0f}",
    ]


PARTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "models": models,
    "sizes": sizes,
    "scaling": scaling,
    "plan": plan,
    "machine": machine,
}


class TrainingCosts(SphinxDirective):
    """``{training-costs} models``: one part of the page; the module's docstring lists them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # a run on another GPU is a new file
        part = self.arguments[0]
        if part not in (*PARTS, "curves", "throughput"):
            known = ", ".join([*PARTS, "curves", "throughput"])
            raise self.error(f"training-costs has no part {part!r}; it has {known}.")
        if part == "throughput":
            return self.parsed(throughput(self.results("throughput-*.json")))
        first, *on_gpus = self.results("training.json") + self.results("training-*.json")
        shown = []
        for training in (first, *on_gpus):
            if on_gpus:
                shown += self.parsed(f"**{training['machine'].get('card') or 'One core'}**")
            shown += [curves(training)] if part == "curves" else self.parsed(PARTS[part](training))
        return shown

    def results(self, pattern: str) -> list[dict[str, Any]]:
        paths = sorted(Path(self.env.srcdir, FOLDER).glob(pattern))
        if pattern == "training.json" and not paths:
            raise self.error(f"{FOLDER}/training.json is missing; python -m benchmarks.training writes it.")
        return [json.loads(path.read_text("utf-8")) for path in paths]

    def parsed(self, markdown: str) -> list[nodes.Node]:
        block = nodes.container(classes=["benchmarks"])
        self.state.nested_parse(
            StringList(markdown.splitlines(), self.env.docname), self.content_offset, block
        )
        return [block]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("training-costs", TrainingCosts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
