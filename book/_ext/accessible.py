"""Mends what a screen reader cannot use in the builder's HTML.

A signature over several lines comes as a definition list without terms; here it becomes lines of text.
A reference is an item of its list: its own role, ``doc-biblioentry``, is no longer used.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

NO_TERMS = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")


def signatures_as_lines(body: str) -> str:
    """Write a signature's parameters as spans, which may stand in a term.

    Example:
        >>> signatures_as_lines("<dl>\\n<dd>z,</dd>\\n</dl>")
        '<span class="sig-lines"><span>z,</span></span>'
    """

    def lines(found: re.Match[str]) -> str:
        parts = found[1].replace("<dd>", "<span>").replace("</dd>\n", "</span>")
        return f'<span class="sig-lines">{parts}</span>'

    return NO_TERMS.sub(lines, body)


def mend(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "body" in context:
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = signatures_as_lines(body)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", mend)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
