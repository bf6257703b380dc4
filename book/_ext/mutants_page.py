"""The page of wrong formulas, written from ``benchmarks/results/mutants.json`` at build time.

``{mutants} shares`` is the table of the lectures, ``survivors`` what no check noticed, lecture by lecture,
and ``equivalents`` the changes that make no difference, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmark_page import NONE, table
from docutils import nodes
from docutils.statemachine import StringList
from plain_forms import lecture_page
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tools.mutants.results import EQUIVALENTS, RESULTS, divided, equivalents, load

Results = dict[str, dict[str, Any]]
Harmless = dict[tuple[str, str, str], str]


def shares(results: Results, harmless: Harmless) -> str:
    rows = []
    for lecture, found in results.items():
        alive, same, share = divided(lecture, found, harmless)
        counts = (found["possible"], found["run"], found["killed"], len(same), len(alive))
        shown = NONE if share is None else f"{share:.1%}".replace("%", "\N{NO-BREAK SPACE}%")
        star = "\\*" if found["seconds"] else ""
        rows.append([f"{{lecture}}`{int(lecture)}`{star}", *map(str, counts), shown])
    return table(["Lecture", "Mutants", "Run", "Died", "No difference", "Survived", "Share that died"], rows)


def survivors(results: Results, harmless: Harmless) -> str:
    parts = []
    for lecture, found in results.items():
        alive = divided(lecture, found, harmless)[0]
        parts += [f"**Lecture {int(lecture)}**", "", *(entry(one) for one in alive), ""] if alive else []
    return "\n".join(parts) or "*None.*"


def entry(one: dict[str, Any]) -> str:
    """A survivor: where it stands, and what stood there before and after."""
    before, _, after = one["change"].partition(" → ")
    return f"- {{formula}}`{one['tag']}` cell {one['cell']}, line {one['line']}: `{before}` → `{after}`"


def reasons(results: Results, harmless: Harmless) -> str:
    lines = []
    for (_, tag, change), why in harmless.items():
        before, _, after = change.partition(" → ")
        lines.append(f"- {{formula}}`{tag}` `{before}` → `{after}`: {why}")
    return "\n".join(lines) or "*None.*"


PARTS: dict[str, Callable[[Results, Harmless], str]] = {
    "shares": shares,
    "survivors": survivors,
    "equivalents": reasons,
}


class Mutants(SphinxDirective):
    """``{mutants} shares``: one part of the page; the module's docstring lists them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        for file in (RESULTS, EQUIVALENTS):
            self.env.note_dependency(str(file))
        if self.arguments[0] not in PARTS:
            raise self.error(f"mutants has no part {self.arguments[0]!r}; it has {', '.join(PARTS)}.")
        in_the_book = {key: found for key, found in load().items() if lecture_page(self.env, int(key))}
        lines = PARTS[self.arguments[0]](in_the_book, equivalents()).splitlines()
        block = nodes.container(classes=["benchmarks"])
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, block)
        return [block]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("mutants", Mutants)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
