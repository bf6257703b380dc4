"""Keeps pages light: figures wait until they are near the screen, and icons come from the fonts alone.

The theme brings every icon of Font Awesome twice, as fonts and as a script of 1.5 MB, which goes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

IMAGE = re.compile(r"<img (?![^>]*\bloading=)")
ICONS = re.compile(r'\s*<script defer src="[^"]*/scripts/fontawesome\.js[^"]*"></script>')


def lazily(body: str) -> str:
    """Let all images but the first wait until the reader comes near them.

    Example:
        >>> lazily('<img src="a.png" /> <img src="b.png" />')
        '<img src="a.png" /> <img loading="lazy" src="b.png" />'
    """
    first, *rest = IMAGE.split(body, maxsplit=1)
    return first + "".join("<img " + IMAGE.sub('<img loading="lazy" ', part) for part in rest)


def wait(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "body" in context:
        context["body"] = lazily(context["body"])


def drop_icons(app: Sphinx, error: Exception | None) -> None:
    """Take the script out of every page, where the theme's template has it, and out of the book."""
    if error or app.builder.format != "html":
        return
    book = Path(app.outdir)
    for page in book.rglob("*.html"):
        text = page.read_text("utf-8")
        if (lighter := ICONS.sub("", text)) != text:
            page.write_text(lighter, "utf-8")
    for file in (book / "_static" / "scripts").glob("fontawesome.js*"):
        file.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", wait)
    app.connect("build-finished", drop_icons)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
