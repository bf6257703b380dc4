"""The page of benchmarks, written from ``benchmarks/results/*.json`` at build time.

``{benchmarks} targets`` sets each target beside what was measured; ``train``, ``other_sizes``, ``trainings``,
``sample`` and ``sizes`` are tables of the speed run, ``quality`` of the other one; ``chart`` draws the
training steps; ``machine`` says where it all ran. None of the compared libraries is needed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from statistics import stdev
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from benchmarks.targets import TARGETS
from flowlib.plots import COLOURS

FOLDER = "benchmarks/results"
NONE = "–"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table.

    Example:
        >>> print(table(["a", "b"], [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    head = list(header)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def libraries(families: dict[str, Any]) -> list[str]:
    """Every library of some families, in the order of the results."""
    return list(dict.fromkeys(library for family in families.values() for library in family["entries"]))


def by_library(families: dict[str, Any], cell: Callable[[dict[str, Any]], str]) -> str:
    """A table with a row for each library and a column for each family."""
    header = ["", *(family["title"] for family in families.values())]
    rows = [
        [
            library,
            *(cell(f["entries"][library]) if library in f["entries"] else NONE for f in families.values()),
        ]
        for library in libraries(families)
    ]
    return table(header, rows)


def times(what: str) -> Callable[[dict[str, Any]], str]:
    """A cell: the ratio of the eager run, and behind a stroke that of the compiled one."""

    def cell(entry: dict[str, Any]) -> str:
        found = [entry[what].get(how, {}).get("ratio") for how in ("eager", "compiled")]
        eager, compiled = (NONE if ratio is None else f"{ratio:.3g}" for ratio in found)
        breaks = "*" if entry.get("compiled", {}).get(what) == "graph breaks" else ""
        return f"{eager} / {compiled}{breaks}".replace(" ", "\N{NO-BREAK SPACE}")

    return cell


def targets(results: dict[str, Any]) -> str:
    rows: list[list[str]] = []
    missed: dict[str, list[str]] = {}  # by reason
    for target in TARGETS:
        number, verdict = target.measured(results), target.verdict(results)
        shown = NONE if number is None else f"{number:.5g}" if target.part == "quality" else f"{number:.4g}"
        rows.append([target.name, f"{target.bound:g}", shown, verdict.replace(" %", "\N{NO-BREAK SPACE}%")])
        if verdict != "met":
            missed.setdefault(target.why, []).append(target.name)
    reasons = [f"- {'; '.join(names)}: {why}" for why, names in missed.items()]
    why = ["", "Why the others are missed:", ""] if reasons else []
    return "\n".join([table(["", "Target", "Measured", ""], rows), *why, *reasons])


def train(results: dict[str, Any]) -> str:
    return by_library(results["speed"]["families"], times("train"))


def other_sizes(results: dict[str, Any]) -> str:
    """A table for each way in which the sizes differ from those of ``train``."""

    def cell(entry: dict[str, Any]) -> str:
        return f"{entry['train']['eager']['ratio']:.3g}"

    def changed(family: dict[str, Any], other: dict[str, Any]) -> str:
        same = other["batch"] == family["batch"]
        return " and ".join(map(str, other["hidden"])) if same else f"{other['batch']:,}"

    families = results["speed"]["families"].values()
    parts = []
    for size in dict.fromkeys(size for family in families for size in family["sizes"]):
        those = [(f, f["sizes"][size] | {"title": f["title"]}) for f in families if size in f["sizes"]]
        sizes = ", ".join(f"{f['title']} {changed(f, other)}" for f, other in those)
        columns = {other["title"]: other for _, other in those}
        parts += [f"**{size.capitalize()}** ({sizes}):", "", by_library(columns, cell), ""]
    return "\n".join(parts)


def trainings(results: dict[str, Any]) -> str:
    """Milliseconds of a step, and in brackets its ratio to the loop by hand."""

    def cell(entry: dict[str, Any]) -> str:
        time = entry["train"]["eager"]
        return f"{time['ms']:.3g} ({time['ratio']:.3g})".replace(" ", "\N{NO-BREAK SPACE}")

    return by_library(results["speed"]["trainings"], cell)


def sample(results: dict[str, Any]) -> str:
    return by_library(results["speed"]["families"], times("sample"))


def sizes(results: dict[str, Any]) -> str:
    families = results["speed"]["families"]
    lines = [by_library(families, lambda entry: f"{entry['live']:,}"), ""]
    lines += [
        f"- {family['title']}: points of shape {tuple(family['event_shape'])}, {family['layers']} "
        + ("layers" if family["layers"] > 1 else "layer")
        + (f", networks of {' and '.join(map(str, family['hidden']))}" if family["hidden"] else "")
        + f", batches of {family['batch']}."
        for family in families.values()
    ]
    lines += [
        f"- {library}, {family['title']}: {entry['note']}"
        for family in families.values()
        for library, entry in family["entries"].items()
        if entry["note"]
    ]
    return "\n".join(lines)


def quality(results: dict[str, Any]) -> str:
    parts = []
    for task in results["quality"]["tasks"].values():
        best = task["best"]

        def cell(entry: dict[str, Any], best: float | None = best) -> str:
            if entry["mean"] is None:
                return "diverged"
            spread = f" ± {stdev(entry['values']):.3f}" if len(entry["values"]) > 1 else ""
            return f"{entry['mean'] - (best or 0):.3f}{spread}"

        what = f"{task['unit']} above the entropy, which is {best:.4f}" if best is not None else task["unit"]
        parts += [f"**{task['title']}**, {what}:", "", by_library(task["families"], cell), ""]
    return "\n".join(parts)


def machine(results: dict[str, Any]) -> str:
    lines = []
    for part, found in results.items():
        at = found["machine"]
        versions = ", ".join(f"{library} {version}" for library, version in at["versions"].items())
        threads = "one thread" if at["threads"] == 1 else f"{at['threads']} threads"
        lines.append(
            f"- {part.capitalize()}: {at['date']}, {at['processor']}, {threads}, Python {at['python']}, "
            f"torch {at['torch']}; {versions}."
        )
    return "\n".join(lines)


PARTS = {
    "targets": targets,
    "train": train,
    "other_sizes": other_sizes,
    "trainings": trainings,
    "sample": sample,
    "sizes": sizes,
    "quality": quality,
    "machine": machine,
}


def chart(results: dict[str, Any]) -> tuple[bytes, str]:
    """The training steps as dots, an SVG, and what it shows in words."""
    families = {
        name: family
        for name, family in results["speed"]["families"].items()
        if family["unit"] == "bare networks"
    }
    bounds = {t.keys[1]: t.bound for t in TARGETS if t.part == "speed" and t.keys[4:6] == ("train", "eager")}
    figure = Figure(figsize=(6.4, 0.7 * len(families) + 1.6), facecolor="white", layout="constrained")
    ax = figure.subplots()
    rows = {name: -row for row, name in enumerate(families)}
    for number, library in enumerate(libraries(families)):
        points = [
            (family["entries"][library]["train"]["eager"]["ratio"], rows[name] + 0.24 - 0.12 * number)
            for name, family in families.items()
            if library in family["entries"]
        ]
        ax.plot(*zip(*points, strict=True), "o", color=COLOURS[number], label=library, markersize=8)
    for name, row in rows.items():
        ax.plot([bounds[name]] * 2, [row - 0.36, row + 0.36], color="black", linewidth=2)
    ax.plot([], [], color="black", linewidth=2, label="target")
    ax.axvline(1, color="0.7", linewidth=1)
    ax.set_xscale("log")
    ticks = [1, 1.5, 2, 3, 5, 10]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(list(rows.values()), [family["title"] for family in families.values()])
    ax.set_title("A training step, in units of its bare networks")
    ax.set_xlabel("ratio, eager; to the left is faster")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    out = BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    spans = []
    for family in families.values():
        ratios = {library: e["train"]["eager"]["ratio"] for library, e in family["entries"].items()}
        fastest = min(ratios, key=lambda library: ratios[library])
        spans.append(
            f"{family['title']}: flowlib {ratios['flowlib']:.2f}, fastest {fastest} {ratios[fastest]:.2f}"
        )
    return out.getvalue(), "Dots for each library on a logarithmic axis. " + "; ".join(spans) + "."


def image(svg: bytes, words: str) -> nodes.Node:
    """A figure inside the page, with its alt text."""
    code = base64.b64encode(svg).decode()
    html = f'<img class="benchmark-chart" alt="{words}" src="data:image/svg+xml;base64,{code}" />'
    return nodes.raw("", html, format="html")


class Benchmarks(SphinxDirective):
    """``{benchmarks} targets``: one part of the page; the module's docstring lists them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        results = {}
        for part in ("speed", "quality"):
            path = Path(self.env.srcdir, FOLDER, f"{part}.json")
            self.env.note_dependency(str(path))
            if not path.exists():
                raise self.error(f"{FOLDER}/{part}.json is missing; make benchmarks writes it.")
            results[part] = json.loads(path.read_text("utf-8"))
        if self.arguments[0] == "chart":
            return [image(*chart(results))]
        if self.arguments[0] not in PARTS:
            known = ", ".join([*PARTS, "chart"])
            raise self.error(f"benchmarks has no part {self.arguments[0]!r}; it has {known}.")
        block = nodes.container(classes=["benchmarks"])
        lines = PARTS[self.arguments[0]](results).splitlines()
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, block)
        return [block]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("benchmarks", Benchmarks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
