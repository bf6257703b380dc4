"""Links each glossary term from its first use: in its lecture, without a mark in the notebook.

The lecture named in book/glossary.yml must use the term in its text; if it does not, the build
warns, and so fails.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

NOT_TEXT = (nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.math, nodes.raw)


def link_first_uses(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link the terms that belong to this lecture, the longest first, so that parts of terms stay whole."""
    if not (lecture := re.match(r"nbs/(\d\d)_", page)):
        return
    source = Path(app.srcdir, "book", "glossary.yml")
    entries = yaml.safe_load(source.read_text("utf-8")) or []
    terms = [entry["term"] for entry in entries if entry["lecture"] == int(lecture[1])]
    glossary = app.builder.get_relative_uri(page, "book/glossary")
    places = app.env.get_domain("std").objects  # what the glossary page has defined
    for term in sorted(terms, key=len, reverse=True):
        if not link_first_use(doctree, term, f"{glossary}#{places['term', term][1]}"):
            logger.warning(
                "%s never uses the term “%s”, which book/glossary.yml gives it; use it or correct the entry.",
                page,
                term,
            )


def link_first_use(doctree: nodes.document, term: str, uri: str) -> bool:
    """Turn the term's first occurrence in a paragraph into a link; say whether there was one."""
    words = r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", term))).replace("'", "['’]")
    pattern = re.compile(rf"(?<![\w-]){words}(?:s|es)?(?![\w-])", re.IGNORECASE)
    for text in list(doctree.findall(nodes.Text)):
        found = pattern.search(text)
        if not found or not _in_paragraph(text):
            continue
        link = nodes.reference("", found[0], internal=True, refuri=uri, classes=["term"])
        parts = [nodes.Text(text[: found.start()]), link, nodes.Text(text[found.end() :])]
        text.parent.replace(text, [part for part in parts if part.astext()])
        return True
    return False


def _in_paragraph(text: nodes.Text) -> bool:
    ancestors = []
    node = text.parent
    while node is not None:
        ancestors.append(node)
        node = node.parent
    return any(isinstance(node, nodes.paragraph) for node in ancestors) and not any(
        isinstance(node, NOT_TEXT) for node in ancestors
    )


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", link_first_uses)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
