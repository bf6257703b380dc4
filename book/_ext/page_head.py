"""What search engines and messengers show of a page: a sentence, a title and a picture.

A lecture's sentence is its aim in ``book/syllabus.md``; another page's is the first of its text. The
picture needs a full address, so it is named where the book knows its own.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

PICTURE = "_static/glow.png"
LONGEST = 200  # what a search engine shows of a sentence
ROW = re.compile(r"\{lecture\}`[^`]*<(\d+)>` \| ([^|]+) \|")


def description(app: Sphinx, page: str, doctree: nodes.document) -> str:
    """One sentence or two about a page, without formulas."""
    if lecture := re.match(r"nbs/(\d\d)_", page):
        rows = ROW.findall(Path(app.srcdir, "book", "syllabus.md").read_text("utf-8"))
        if aim := dict(rows).get(str(int(lecture[1]))):
            return aim
    paragraphs = (node for node in doctree.findall(nodes.paragraph) if not node.next_node(nodes.math))
    first = next(paragraphs, None)
    return shortened(" ".join(first.astext().split())) if first else ""


def shortened(text: str) -> str:
    """Whole sentences as far as there is room, or whole words of the first.

    Example:
        >>> shortened("One. Two.")
        'One. Two.'
    """
    if len(text) <= LONGEST:
        return text
    sentences = re.match(rf"(?s).{{1,{LONGEST - 1}}}[.?!](?=\s)", text)
    return sentences[0] if sentences else text[: text.rindex(" ", 0, LONGEST)] + " …"


def add_head(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Add the page's description and its preview to its head."""
    if doctree is None:  # the search page and the like
        return
    told = description(app, page, doctree)
    title = re.sub("<[^>]*>", "", context.get("title", ""))
    tags = {"name": {"description": told}} if told else {}
    tags["property"] = {
        "og:type": "article",
        "og:site_name": app.config.html_title,
        "og:title": title,
        **({"og:description": told} if told else {}),
    }
    if base := app.config.html_baseurl:
        tags["property"] |= {"og:url": f"{base}{page}.html", "og:image": base + PICTURE}
        tags.setdefault("name", {})["twitter:card"] = "summary_large_image"
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n<meta {kind}="{name}" content="{escape(value)}"/>'
        for kind, group in tags.items()
        for name, value in group.items()
    )


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", add_head)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
