"""The slide map and the formulas page, written from the notebooks and book/slides.yml at build time.

``{slide-map} A`` lists one deck slide by slide: what each slide states, the formula that derives
it, the lecture, the check that was executed with its bound, and the line of flowlib.
``{formula-list}`` lists every tagged formula, lecture by lecture. A tag that no lecture
checks, or a name that flowlib does not have, stops the build with a sentence.
"""

from __future__ import annotations

import importlib
import inspect
from itertools import groupby
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from plain_forms import lecture_page
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from tools.formulas import Formula, all_formulas


class Listing(SphinxDirective):
    """What both directives share: the formulas of the lectures in the book, and their Markdown."""

    def markdown(self) -> str:
        """The listing as MyST Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # whatever lecture changed, these pages follow
        folder = Path(self.env.srcdir, "nbs")
        self.formulas = {row.tag: row for row in all_formulas(folder) if self.in_book(row)}
        block = nodes.container(classes=["formula-listing"])
        lines = StringList(self.markdown().splitlines(), self.env.docname)
        self.state.nested_parse(lines, self.content_offset, block)
        return [block]

    def in_book(self, row: Formula) -> bool:
        return f"nbs/{Path(row.notebook).stem}" in self.env.found_docs

    def lecture(self, number: int) -> str:
        page = lecture_page(self.env, number)
        return f"[lecture {number}](/{page}.ipynb)" if page else f"lecture {number} (planned)"

    def entry(self, tag: str) -> str:
        """One formula with the link to its derivation and the checks that were executed."""
        if tag not in self.formulas:
            raise self.error(
                f"No lecture of the book has a formula ({tag}) with a check; "
                "correct the tag in book/slides.yml."
            )
        row = self.formulas[tag]
        checks = [row.line, *(check.line for check in row.more)]
        shown = "\\\n".join(f"`{line}`" for line in checks)
        where = f"{self.lecture(int(row.notebook[:2]))}, “{row.section}”, {{formula}}`{tag}`"
        return f"$$\n{row.latex}\n$$\n\nDerived in {where}.\\\n{shown}"


class SlideMap(Listing):
    """``{slide-map} A``: one deck, slide by slide."""

    required_arguments = 1

    def markdown(self) -> str:
        path = Path(self.env.srcdir, "book/slides.yml")
        self.env.note_dependency(str(path))
        rows = [row for row in yaml.safe_load(path.read_text("utf-8")) if row["deck"] == self.arguments[0]]
        parts = []
        for slide, group in groupby(rows, key=lambda row: row["slide"]):
            parts.append(f"```{{rubric}} {slide}\n```")
            parts += [self.item(row) for row in group]
        return "\n\n".join(parts)

    def item(self, row: dict[str, Any]) -> str:
        if "planned" in row:
            body = [f"{row['row']} → {self.lecture(row['planned'])}"]
        else:
            body = [row["row"], *(self.entry(tag) for tag in row["tags"])]
        if row.get("code"):
            body.append(f"In flowlib: {{source}}`{row['code']}`")
        return "- " + indent("\n\n".join(body), "  ").lstrip()


class FormulaList(Listing):
    """``{formula-list}``: every tagged formula of every lecture."""

    def markdown(self) -> str:
        parts = []
        for notebook, rows in groupby(self.formulas.values(), key=lambda row: row.notebook):
            parts.append(f"```{{rubric}} Lecture {int(notebook[:2])}\n```")
            parts += ["- " + indent(self.entry(row.tag), "  ").lstrip() for row in rows]
        return "\n\n".join(parts)


class Source(SphinxRole):
    """``{source}`flowlib.layers.planar.Planar.forward```: file and line, linked to the highlighted source."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            path, line, anchor = locate(self.text)
        except ValueError as error:
            return [], [self.inliner.reporter.error(str(error), line=self.lineno)]
        page = self.env.app.builder.get_relative_uri(self.env.docname, f"_modules/{path}")
        text = nodes.literal("", f"{self.text} ({path}.py, line {line})")
        return [nodes.reference("", "", text, internal=True, refuri=f"{page}#{anchor}")], []


def locate(name: str) -> tuple[str, int, str]:
    """Return the path without ending, the line, and the anchor on the source page of a dotted name.

    Raises:
        ValueError: if flowlib has nothing of that name.

    Example:
        >>> locate("flowlib.flow.Flow.log_prob")[::2]
        ('flowlib/flow', 'Flow.log_prob')
        >>> locate("flowlib.train.fit")[::2]
        ('flowlib/train/loop', 'fit')
    """
    parts = name.split(".")
    end = len(parts)
    while end and not _is_module(".".join(parts[:end])):
        end -= 1
    target = importlib.import_module(".".join(parts[:end])) if end else None
    module = target
    for part in parts[end:]:
        target = getattr(target, part, None)
    if target is None or module is None or end == len(parts):
        raise ValueError(f"flowlib has no class, function or method {name}; correct it in book/slides.yml.")
    home = getattr(module, parts[end]).__module__  # not where a package exports it from
    target = target.fget if isinstance(target, property) else target
    documented = end + 2 if inspect.getdoc(target) and target.__doc__ else end + 1
    return (
        home.replace(".", "/"),
        inspect.getsourcelines(target)[1],
        ".".join(parts[end:documented]),
    )


def _is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("slide-map", SlideMap)
    app.add_directive("formula-list", FormulaList)
    app.add_role("source", Source())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
