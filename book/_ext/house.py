"""The page that shows the house to contributors, written from the code when the book is built.

``{house} flowlib/layers`` lists a folder's files, each with the first sentence of its docstring.
``{journey} 6.1`` follows one formula from its slide to its check and its layer. A folder without Python,
a file that says nothing, or a formula that no slide names, stops the build with a sentence.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from slide_map import Listing
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

# reStructuredText's marks, and Markdown's
MARKS = {r":math:`([^`]*)`": r"$\1$", r":\w+:`~?(?:[\w.]*\.)?(\w+)`": r"`\1`", "``": "`"}
DECKS = {"A": "Deck A", "B": "Deck B"}


def first_sentence(path: Path) -> str:
    """The sentence that opens a module's docstring, as Markdown."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split())
    text = re.sub(r"(?<=[.])\s.*", "", text)
    for mark, markdown in MARKS.items():
        text = re.sub(mark, markdown, text)
    return text


class House(SphinxDirective):
    """``{house} tools``: what each file of a folder is for."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        folder = Path(self.env.srcdir, self.arguments[0])
        files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        rows = []
        for path in files:
            if not (says := first_sentence(path)):
                raise self.error(f"{path.name} says nothing of itself; give it a docstring with a sentence.")
            rows.append(f"- `{path.name}`: {says}")
        if not rows:
            raise self.error(f"{self.arguments[0]} holds no Python; name another folder.")
        block = nodes.container(classes=["house"])
        self.state.nested_parse(StringList(rows, self.env.docname), self.content_offset, block)
        return [block]


class Journey(Listing):
    """``{journey} 6.1``: a formula's way from the slide to the layer."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (block,) = super().run()
        block["classes"] = ["journey"]
        return [block]

    def markdown(self) -> str:
        tag = self.arguments[0]
        slides = yaml.safe_load(Path(self.env.srcdir, "book", "slides.yml").read_text("utf-8"))
        row = next((row for row in slides if tag in row.get("tags", []) and row.get("code")), None)
        if row is None or tag not in self.formulas:
            raise self.error(f"No slide in book/slides.yml has the formula ({tag}) and a line of flowlib.")
        found = self.formulas[tag]
        number = int(found.notebook[:2])
        stops = [
            f"**A slide states it.** {DECKS[row['deck']]}, “{row['slide']}”: {row['row']}",
            f"**A lecture derives it** as {{formula}}`{tag}`: {self.lecture(number)}, “{found.section}”.",
            f"**A check holds it**, in the cell below the formula, and prints\n\n`{found.line}`",
            f"**The package computes it**: {{source}}`{row['code']}`",
            "**Tests keep it.** `tests/flowlib/test_models.py` compares the log-determinant of every model\n"
            f"with autograd; `make mutants NB={number:02}` makes the formula wrong to try the check.",
        ]
        return "\n".join("1. " + stop.replace("\n", "\n   ") for stop in stops)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("house", House)
    app.add_directive("journey", Journey)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
