"""Keeps pages light: figures wait until they are near the screen, and icons come from the fonts alone.

A figure that waits says its size, or the text below it would jump when it comes.
The theme brings every icon of Font Awesome twice, as fonts and as a script of 1.5 MB, which goes.
"""

from __future__ import annotations

import re
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import imagesize
from sphinx.application import Sphinx

IMAGE = re.compile(r"<img (?![^>]*\bloading=)")
UNSIZED = re.compile(r'<img (?![^>]*\b(?:width|height|style)=)([^>]*\bsrc="(?P<file>[^":]*_images/[^":]+)")')
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


@cache
def size(file: Path) -> tuple[int, int]:
    return imagesize.get(file)


def sized(text: str, folder: Path) -> str:
    """Tell the browser how large each picture of the text is; the theme sizes its own."""

    def tell(image: re.Match[str]) -> str:
        file = (folder / unquote(unescape(image["file"]))).resolve()
        width, height = size(file) if file.is_file() else (-1, -1)
        return f'<img width="{width}" height="{height}" {image[1]}' if width > 0 < height else image[0]

    return UNSIZED.sub(tell, text)


def finish(app: Sphinx, error: Exception | None) -> None:
    """Size the images, which are in place now, and take the script out of every page and out of the book."""
    if error or app.builder.format != "html":
        return
    book = Path(app.outdir)
    for page in book.rglob("*.html"):
        text = page.read_text("utf-8")
        if (lighter := sized(ICONS.sub("", text), page.parent)) != text:
            page.write_text(lighter, "utf-8")
    for file in (book / "_static" / "scripts").glob("fontawesome.js*"):
        file.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", wait)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
