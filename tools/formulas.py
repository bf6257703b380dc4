r"""Reads the formulas out of the lectures: each ``\tag{6.3}`` and the check that carries it.

The lint holds the lectures to these rows, and pages of the book are generated from them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

TAG = re.compile(r"\\tag\*?\{([^{}]*)\}")
DISPLAY = re.compile(r"\$\$(.*?)\$\$", re.DOTALL)
PRINTED = re.compile(
    r"^✓ \((?P<tag>[^()]+)\) (?P<says>.*): (?P<bound>(?:equal to |to )within .*|at (?:most|least) .*)$"
)

# The functions of flowlib.check that take a tag; check.exercise takes an exercise's number.
CHECKS = ("identity", "log_det", "round_trip", "integrates_to_one", "at_most", "at_least")


@dataclass(frozen=True)
class Tag:
    r"""One ``\tag{…}`` in a Markdown cell; ``latex`` is its formula without the tag."""

    tag: str
    latex: str
    cell: int


@dataclass(frozen=True)
class Check:
    """One call such as ``check.identity("6.3b", …)`` at the top level of a code cell.

    ``tag`` is None if the first argument is not a plain string. ``last`` says whether the cell's
    last statement is a call from flowlib.check. ``says`` and ``bound`` are what it printed.
    """

    tag: str | None
    function: str
    cell: int
    last: bool
    line: str = ""
    says: str = ""
    bound: str = ""

    @property
    def formula(self) -> str | None:
        """The formula's tag: ``"6.3"`` for the second look ``"6.3b"``."""
        return self.tag and self.tag.rstrip("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True)
class Formula:
    """A row of the formulas page: the formula, where it stands, and the checks that hold."""

    tag: str
    latex: str
    notebook: str
    cell_id: str
    anchor: str
    section: str
    line: str
    bound: str
    more: tuple[Check, ...]


def tags(notebook: NotebookNode) -> list[Tag]:
    r"""Return every ``\tag{…}`` in order; one outside ``$$…$$`` has an empty ``latex``."""
    found = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        blocks = list(DISPLAY.finditer(cell.source))
        for match in TAG.finditer(cell.source):
            inside = [block[1] for block in blocks if block.start() < match.start() < block.end()]
            latex = re.sub(r"^> ?", "", inside[0], flags=re.MULTILINE) if inside else ""
            found.append(Tag(match[1], TAG.sub("", latex).strip(), index))
    return found


def checks(notebook: NotebookNode) -> list[Check]:
    """Return every call of a tagged check, in order, with the line that it printed."""
    return [
        check
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
        for check in _checks_of(cell, index)
    ]


def called(node: ast.AST) -> str | None:
    """Return ``name`` if the node is a call ``check.name(…)``, and None otherwise."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="check"), attr=name)):
            return name
    return None


def statements(source: str) -> list[ast.stmt]:
    """Return the statements of a code cell; none if it is not plain Python (the lint says so)."""
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def first_text(call: ast.Call) -> str | None:
    """Return a call's first argument if it is a plain string."""
    match call.args:
        case [ast.Constant(value=str(text)), *_]:
            return text
    return None


def formulas(path: Path) -> list[Formula]:
    """Return the rows of one lecture, in order; a lecture that breaks the rules may lack rows."""
    notebook = nbformat.read(path, as_version=4)
    found = checks(notebook)
    rows = []
    for tag in tags(notebook):
        mine = [check for check in found if check.formula == tag.tag]
        main = next((check for check in mine if check.tag == tag.tag), None)
        if main is None:
            continue
        rows.append(
            Formula(
                tag=tag.tag,
                latex=tag.latex,
                notebook=path.name,
                cell_id=notebook.cells[tag.cell].id,
                anchor="formula-" + tag.tag.replace(".", "-"),
                section=_section(notebook, tag),
                line=main.line,
                bound=main.bound,
                more=tuple(check for check in mine if check is not main),
            )
        )
    return rows


def all_formulas(folder: Path) -> list[Formula]:
    """Return the rows of every lecture in the folder, in the order of the course."""
    return [row for path in sorted(folder.glob("*.ipynb")) for row in formulas(path)]


def _checks_of(cell: NotebookNode, index: int) -> Iterator[Check]:
    body = statements(cell.source)
    last = bool(body) and isinstance(body[-1], ast.Expr) and called(body[-1].value) is not None
    printed = _printed(cell)
    for statement in body:
        for node in ast.walk(statement):
            if (name := called(node)) in CHECKS:
                at_top = isinstance(statement, ast.Expr) and statement.value is node
                tag = first_text(node) if at_top else None
                yield Check(tag, name, index, last, *printed.get(tag, ("", "", "")))


def _printed(cell: NotebookNode) -> dict[str | None, tuple[str, str, str]]:
    lines = "".join(output.text for output in cell.get("outputs", []) if "text" in output).splitlines()
    matches = [match for line in lines if (match := PRINTED.match(line))]
    return {match["tag"]: (match[0], match["says"], match["bound"]) for match in matches}


def _section(notebook: NotebookNode, tag: Tag) -> str:
    """The last heading above the formula."""
    above = [cell.source for cell in notebook.cells[: tag.cell] if cell.cell_type == "markdown"]
    above.append(notebook.cells[tag.cell].source.split(rf"\tag{{{tag.tag}}}")[0])
    headings = re.findall(r"^#{1,6} +(.+)$", "\n".join(above), re.MULTILINE)
    return headings[-1] if headings else ""
