"""Builds the book for the repository in which its files lie, so that a fork edits nothing.

``tools.repo.home`` finds the address, from the workflow or from git's origin. Here it takes the place of
the one in the files: in the text of the pages, in the notebooks that a page offers for download, in the
buttons, and in the pages' own addresses. Colab opens notebooks as they lie in a branch: ``main``, or,
where main's name another repository, ``colab``, which the workflow ``pages.yml`` writes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

from tools.repo import address_pattern, home, pages
from tools.setup_cell import repository


def set_addresses(app: Sphinx, config: Config) -> None:
    """Tell the theme where the repository is, and Sphinx where the book will be read."""
    root = Path(app.srcdir)
    here = home(root)
    theirs = {} if here == repository(root) else {"repository_branch": "colab"}
    config.html_theme_options = {**config.html_theme_options, "repository_url": here, **theirs}
    if served := os.environ.get("BOOK_URL") or pages(here):
        config.html_baseurl = f"{served.rstrip('/')}/"


def _ours(app: Sphinx, text: str) -> str:
    root = Path(app.srcdir)
    return address_pattern(repository(root)).sub(home(root), text)


def rewrite_source(app: Sphinx, page: str, source: list[str]) -> None:
    """Let a page read as if its file named this repository."""
    source[0] = _ours(app, source[0])


def rewrite_downloads(app: Sphinx, failed: Exception | None) -> None:
    """Let the files that readers download name this repository too."""
    for path in Path(app.outdir, "_sources").rglob("*.*"):
        text = path.read_text("utf-8")
        if text != (ours := _ours(app, text)):
            path.write_text(ours, "utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", set_addresses)
    app.connect("source-read", rewrite_source)
    app.connect("build-finished", rewrite_downloads)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
