r"""Shows properly what the notebooks write plainly.

The lectures hold no directives, so that they read the same on Colab and GitHub. Here the
book finds the plain forms and adds what only a book can:

- a formula with ``\tag{6.3}`` gets the address ``#formula-6-3``;
- a block quote that opens with a bold **Theorem 6.2 …** becomes a theorem box;
- a folded cell is named by its ``# @title …``, as on Colab;
- a full stop or comma after an inline formula stays on the formula's line;
- the role ``{formula}`6.3``` links to the formula from any page of ``book/``.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxRole
from sphinx.writers.html5 import HTML5Translator

TAG = re.compile(r"\\tag\{([^{}]+)\}")
STATEMENT = re.compile(r"(Theorem|Lemma|Proposition|Corollary|Definition|Remark|Example|Algorithm)\b")
FOLD_TITLE = re.compile(r"# @title (.+)")
CLOSING = tuple(".,;:!?)]’'-–")
WORD_JOINER = "\u2060"


def formula_id(tag: str) -> str:
    """The address of a tag within its page: ``"6.3"`` gives ``"formula-6-3"``."""
    return "formula-" + tag.replace(".", "-")


def lecture_page(env: BuildEnvironment, number: int) -> str | None:
    """The name of lecture ``number``'s page, or None while it is not in the book."""
    return next((name for name in sorted(env.found_docs) if name.startswith(f"nbs/{number:02d}_")), None)


def address_formulas(doctree: nodes.document) -> None:
    """Give tagged formulas an id, and hand formulas to MathJax as they were written."""
    for block in doctree.findall(nodes.math_block):
        text = block.astext()
        if block.get("number") or block.get("nowrap"):
            continue
        if "\\begin{" in text or "\\tag{" in text:
            # Sphinx would wrap the formula in "split", in which a tag is an error
            block["nowrap"] = True
            block.children = [nodes.Text(rf"\[{text}\]")]
        if tag := TAG.search(text):
            identifier = formula_id(tag[1])
            if identifier not in doctree.ids:
                block["ids"].append(identifier)
                doctree.ids[identifier] = block


def mark_theorems(doctree: nodes.document) -> None:
    """Give block quotes that open with a bold statement name the class of that statement."""
    for quote in doctree.findall(nodes.block_quote):
        paragraph = quote.next_node(nodes.paragraph)
        parts = [part for part in paragraph or [] if part.astext().strip()]
        opening = parts[0] if parts else None
        if isinstance(opening, nodes.strong) and (kind := STATEMENT.match(opening.astext())):
            quote["classes"] += ["statement", kind[1].lower()]


def name_folds(doctree: nodes.document) -> None:
    """Name a folded cell by what it holds."""
    for cell in doctree.findall(nodes.container):
        if cell.get("hide_mode") and (title := FOLD_TITLE.match(cell.astext())):
            cell["prompt_show"] = title[1]


def open_fold(writer: HTML5Translator, node: HideCodeCellNode) -> None:
    """Write a folded cell with its name alone, which a screen reader says too."""
    classes = " ".join(["hide", *node["classes"]])
    writer.body.append(f'<details class="{classes}"><summary>{escape(node["prompt_show"])}</summary>\n')


def close_fold(writer: HTML5Translator, node: HideCodeCellNode) -> None:
    writer.body.append("</details>\n")


def keep_punctuation(doctree: nodes.document) -> None:
    """Join punctuation to the inline formula before it: a browser may break a line between the two."""
    for formula in list(doctree.findall(nodes.math)):
        after = formula.next_node(descend=False, siblings=True)
        if isinstance(after, nodes.Text) and after.startswith(CLOSING):
            formula.parent.replace(after, nodes.Text(WORD_JOINER + after))


class Formula(SphinxRole):
    """``{formula}`6.3```: a link to the formula, or its bare tag while the lecture is planned."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return [formula_link(self.env, self.text)], []


def formula_link(env: BuildEnvironment, tag: str) -> nodes.Node:
    """A link to the formula with this tag; the tag's first number names the lecture."""
    lecture = tag.partition(".")[0]
    page = lecture_page(env, int(lecture)) if lecture.isdigit() else None
    if page is None:
        return nodes.Text(f"({tag})")
    uri = env.app.builder.get_relative_uri(env.docname, page)
    letterless = tag.rstrip("abcdefghijklmnopqrstuvwxyz")  # 6.3b is a second look at 6.3
    return nodes.reference("", f"({tag})", internal=True, refuri=f"{uri}#{formula_id(letterless)}")


def on_doctree(app: Sphinx, doctree: nodes.document) -> None:
    address_formulas(doctree)
    mark_theorems(doctree)
    name_folds(doctree)
    keep_punctuation(doctree)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", on_doctree)
    app.add_role("formula", Formula())
    app.add_node(HideCodeCellNode, override=True, html=(open_fold, close_fold))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
