"""Keeps every page free of requests that leave the book.

The builder registers thebe, which runs code on a remote kernel, on every page and twice:
the script throws on load and names a CDN. Nothing in this book uses it, so it goes.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Take thebe's scripts off the page before it is written."""
    scripts = context.get("script_files", [])
    scripts[:] = [script for script in scripts if "thebe" not in f"{script} {_body(script)}".lower()]


def _body(script: Any) -> str:
    return str(getattr(script, "attributes", {}).get("body", ""))


def setup(app: Sphinx) -> dict[str, bool]:
    # after the theme, which adds scripts in the same event
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
