"""Lets the search find lectures by their titles, formulas by number and layers by name before the words.

Sphinx's search puts entries of the index first; glossary terms are such entries already. Here lectures,
formulas and the names of the API become entries too. Connected after ``plain_forms``, which addresses the
formulas.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from plain_forms import TAG
from sphinx import addnodes
from sphinx.application import Sphinx


def index_formulas(doctree: nodes.document) -> None:
    """Enter each addressed formula under its tag."""
    for block in list(doctree.findall(nodes.math_block)):
        tag = TAG.search(block.astext())
        if tag and block["ids"]:
            entry = ("single", tag[1], block["ids"][0], "main", None)
            block.parent.insert(block.parent.index(block), addnodes.index(entries=[entry]))


def index_names(doctree: nodes.document) -> None:
    """Enter what the API page describes under its bare name, the first of equal names alone."""
    taken: set[str] = set()
    for signature in doctree.findall(addnodes.desc_signature):
        name = signature.get("fullname", "").rpartition(".")[2]
        above = signature.parent.parent.index(signature.parent) - 1
        index = signature.parent.parent[above] if above >= 0 else None
        if name and name not in taken and isinstance(index, addnodes.index) and signature["ids"]:
            taken.add(name)
            index["entries"].append(("single", name, signature["ids"][0], "main", None))


def index_title(app: Sphinx, doctree: nodes.document) -> None:
    """Enter a lecture under its title's words before a colon, without its number."""
    section = next(doctree.findall(nodes.section), None)
    if section is None or not app.env.docname.startswith("nbs/"):
        return
    title = re.sub(r"^\d+\. ", "", section[0].astext()).partition(":")[0]
    section.insert(1, addnodes.index(entries=[("single", title, section["ids"][0], "main", None)]))


def on_doctree(app: Sphinx, doctree: nodes.document) -> None:
    index_title(app, doctree)
    index_formulas(doctree)
    index_names(doctree)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", on_doctree, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
