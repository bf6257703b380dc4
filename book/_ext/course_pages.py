"""What the book's own pages take from elsewhere at build time.

``{errata} slip`` lists the entries of one kind in ``book/errata.yml``, and ``{terms}`` reads
``book/glossary.yml``; both files say at their top what an entry holds. A wrong entry stops the
build with a sentence.
``{lecture}`` links to a lecture that stands and marks one that does not as planned.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from textwrap import indent
from typing import Any, ClassVar

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from plain_forms import lecture_page
from sphinx.application import Sphinx
from sphinx.util.docutils import ReferenceRole, SphinxDirective

KINDS = ("error", "slip", "missing condition", "remark")
DECKS = {"A": "Deck A", "B": "Deck B", "AB": "Decks A and B", "beyond": "Beyond the decks"}


class DataDirective(SphinxDirective):
    """A directive that turns a list of mappings in a YAML file into Markdown."""

    source: str
    fields: ClassVar[dict[str, type]]
    nothing: str

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir, self.source)
        self.env.note_dependency(str(path))
        self.env.note_reread()  # a lecture that joins the book turns plain numbers into links
        entries = yaml.safe_load(path.read_text("utf-8")) or []
        for number, entry in enumerate(entries, 1):
            self.require(number, entry)
        entries = self.chosen(entries)
        markdown = self.markdown(entries) if entries else self.nothing
        block = nodes.container()
        self.state.nested_parse(StringList(markdown.splitlines(), str(path)), self.content_offset, block)
        return block.children

    def chosen(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The entries that this place of the page shows."""
        return entries

    def require(self, number: int, entry: Any) -> None:
        """Stop the build unless the entry has exactly this file's fields, deck and types included."""
        expected = ", ".join(f"{name} ({kind.__name__})" for name, kind in self.fields.items())
        if not isinstance(entry, dict) or set(entry) != set(self.fields):
            found = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
            raise self.error(f"Entry {number} of {self.source} has {found}; expected exactly {expected}.")
        wrong = [name for name, kind in self.fields.items() if not isinstance(entry[name], kind)]
        if wrong or entry["deck"] not in DECKS:
            name = wrong[0] if wrong else "deck"
            hint = "Put quotes around it." if wrong else "Use A, B, AB or beyond."
            raise self.error(f"Entry {number} of {self.source}: {name} is {entry[name]!r}. {hint}")

    def markdown(self, entries: list[dict[str, Any]]) -> str:
        """The entries as MyST Markdown."""
        raise NotImplementedError

    def lecture(self, number: int) -> str:
        """A link to a lecture that stands, and plain words for one that is planned."""
        page = lecture_page(self.env, number)
        return f"[lecture {number}](/{self.env.doc2path(page, base=False)})" if page else f"lecture {number}"


class Errata(DataDirective):
    """``{errata} slip``: what the slides say, what is right, and the number that decides, for one kind."""

    required_arguments = 1
    final_argument_whitespace = True
    source = "book/errata.yml"
    fields: ClassVar = {
        "deck": str,
        "slide": str,
        "kind": str,
        "says": str,
        "correct": str,
        "tag": str,
        "number": str,
    }
    nothing = "*No entry of this kind is recorded yet.*"

    def require(self, number: int, entry: Any) -> None:
        super().require(number, entry)
        for kind in (self.arguments[0], entry["kind"]):
            if kind not in KINDS:
                raise self.error(
                    f"Entry {number} of {self.source}: no kind {kind!r}; use {', '.join(KINDS)}."
                )

    def chosen(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [entry for entry in entries if entry["kind"] == self.arguments[0]]

    def markdown(self, entries: list[dict[str, Any]]) -> str:
        parts = []
        for (deck, slide), group in groupby(entries, key=lambda entry: (entry["deck"], entry["slide"])):
            parts.append(f"```{{rubric}} {DECKS[deck][0].upper() + DECKS[deck][1:]}: {slide}\n```")
            parts += [
                f"- *The slide:* {entry['says']}\\\n"
                f"  *Correct:* {entry['correct']}\\\n"
                f"  *What decides:* {entry['number']} {{formula}}`{entry['tag']}`"
                for entry in group
            ]
        return "\n\n".join(parts)


class Terms(DataDirective):
    """``{terms}``: the decks' terms in alphabetical order, each with an address ``#term-…``."""

    source = "book/glossary.yml"
    fields: ClassVar = {"term": str, "definition": str, "deck": str, "lecture": int}
    nothing = "*No term is recorded yet.*"

    def markdown(self, entries: list[dict[str, Any]]) -> str:
        entries = sorted(entries, key=lambda entry: entry["term"].lower())
        body = "\n\n".join(
            f"{entry['term']}\n"
            + indent(f"{entry['definition'].strip()} *({DECKS[entry['deck']]}, ", "  ")
            + f"{self.lecture(entry['lecture'])})*"
            for entry in entries
        )
        return f"::::{{glossary}}\n\n{body}\n::::"


class Lecture(ReferenceRole):
    """``{lecture}`Planar flows <6>```: a link to the lecture, or its title marked as planned."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        page = lecture_page(self.env, int(self.target))
        if page is None:
            return [nodes.Text(self.title + " "), nodes.inline("", "planned", classes=["planned"])], []
        uri = self.env.app.builder.get_relative_uri(self.env.docname, page)
        return [nodes.reference("", self.title, internal=True, refuri=uri)], []


def address_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Let Markdown links such as ``../book/glossary.md#term-planar-flow`` find the terms."""
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for term in doctree.findall(nodes.term):
        for identifier in term["ids"]:
            slugs[identifier] = (term.line, identifier, term.astext())


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("errata", Errata)
    app.add_directive("terms", Terms)
    app.add_role("lecture", Lecture())
    app.connect("doctree-read", address_terms)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
