"""A lecture as a list of statements with the names that each reads and writes: what follows from what."""

from __future__ import annotations

import ast
import builtins
import copy
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nbformat import NotebookNode

from tools import setup_cell
from tools.formulas import CHECKS, called, first_text, statements

CELLS_AT_MOST = 3  # with checks, that are run for one mutant
ALWAYS = ("manual_seed", "set_default_dtype", "use_style")
DRAWS = ("plots", "plt", "ax", "axes", "figure", "print")


@dataclass
class Step:
    """A top-level statement of a code cell.

    ``reads`` and ``writes`` are names, ``changes`` those whose object may change in place. ``tag`` is that of
    the check in it. ``mutable`` says whether it may be made wrong.
    """

    node: ast.stmt
    cell: int
    tag: str | None = None
    mutable: bool = True
    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)

    @property
    def certain(self) -> bool:
        """Whether it surely writes its names anew; a loop may run no time."""
        return not isinstance(self.node, ast.For | ast.While | ast.If | ast.Try)

    @property
    def always(self) -> bool:
        """Whether everything after it depends on it."""
        return isinstance(self.node, ast.Expr) and any(name in ast.unparse(self.node) for name in ALWAYS)

    @property
    def trains(self) -> bool:
        """Whether it may take long."""
        return any(_trains(child) for child in ast.walk(self.node))


def steps(notebook: NotebookNode) -> list[Step]:
    """Return every top-level statement of a lecture in order."""
    found: list[Step] = []
    inside: dict[str, set[str]] = {}  # what the functions defined so far read when they are called
    held: dict[str, set[str]] = {}  # what the objects made so far were made of, and change with
    imported = set(dir(builtins))  # nothing changes in a module
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        body = statements(cell.source)
        stub = (
            bool(body) and _tag(body[-1], ("exercise",)) and not cell.source.startswith("# @title Solution")
        )
        for node in body:
            reads, writes = _names(node)
            reads |= {name for called_name in reads for name in inside.get(called_name, ())}
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                inside[node.name] = reads
            tag = _tag(node, CHECKS if stub else (*CHECKS, "exercise"))
            mutable = not stub and not setup_cell.is_setup(cell)
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported |= writes
            own = dict(_made_of(node))
            changes = _with_parts(set(_changed(node)), held | own) - imported
            reads = _with_parts(reads, held)
            step = Step(node, index + 1, tag, mutable, reads | changes, writes, changes)
            found.append(step)
            if step.certain:  # what was made before holds the old object
                held = {name: parts - writes for name, parts in held.items() if name not in writes}
            held |= own
    return found


def targets(program: list[Step], start: int) -> list[int]:
    """The checks that follow from a statement, of the first cells that have one."""
    if program[start].tag:
        return [start]
    tainted = program[start].writes | program[start].changes
    found: list[int] = []
    for k in range(start + 1, len(program)):
        step = program[k]
        if step.reads & tainted:
            tainted |= step.writes | step.changes
            if step.tag:
                found.append(k)
        elif step.certain:
            tainted -= step.writes
        if len({program[k].cell for k in found}) > CELLS_AT_MOST:
            return found[:-1]
    return found


def needed(program: list[Step], wanted_steps: Iterable[int]) -> list[int]:
    """The statements that some others rest on, with these, in order; nothing that only draws or prints."""
    chosen = set(wanted_steps)
    wanted: set[str] = set()
    for k in range(max(chosen, default=-1), -1, -1):
        step = program[k]
        if k in chosen or (step.writes | step.changes) & wanted or step.always:
            chosen.add(k)
            wanted = (wanted - step.writes if step.certain else wanted) | step.reads
    return sorted(chosen)


def _tag(node: ast.AST, functions: tuple[str, ...]) -> str | None:
    calls = (child for child in ast.walk(node) if isinstance(child, ast.Call) and called(child) in functions)
    return next((first_text(call) for call in calls), None)


def _names(node: ast.stmt) -> tuple[set[str], set[str]]:
    """The names read before they are written, and those written."""
    match node:
        case ast.For(target, source, body, orelse):
            inner = [ast.Assign([target], source), *body, *orelse]
        case ast.With(items, body):
            opened = [(item.optional_vars or ast.Name("_", ast.Store()), item.context_expr) for item in items]
            inner = [*(ast.Assign([name], value) for name, value in opened), *body]
        case _:
            return names_of_one(node)
    reads: set[str] = set()
    writes: set[str] = set()
    for child in inner:
        of_child = _names(ast.fix_missing_locations(child))
        reads |= of_child[0] - writes
        writes |= of_child[1]
    return reads, writes


class AsGenerators(ast.NodeTransformer):
    """Comprehensions as generators, which alone have a scope of their own in every version's symbol table."""

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp) -> ast.AST:
        return self.generic_visit(ast.GeneratorExp(node.elt, node.generators))

    visit_SetComp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        pair = ast.Tuple([node.key, node.value], ast.Load())
        return self.generic_visit(ast.GeneratorExp(pair, node.generators))


def names_of_one(node: ast.AST) -> tuple[set[str], set[str]]:
    """The names that a simple statement, a definition or an expression reads from outside, and makes."""
    table = symtable.symtable(ast.unparse(AsGenerators().visit(copy.deepcopy(node))), "cell", "exec")
    reads = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    writes = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    grown = [child.target for child in ast.walk(node) if isinstance(child, ast.AugAssign)]
    reads |= writes & set(roots(grown))
    inner = list(table.get_children())
    for scope in inner:
        inner += scope.get_children()
        reads |= {s.get_name() for s in scope.get_symbols() if s.is_global() and s.is_referenced()}
    return reads, writes


def _changed(node: ast.stmt) -> Iterator[str]:
    """Names whose object is written to, or handed to a call that is made for its effect or trains."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return
    for child in ast.walk(node):
        match child:
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                yield from roots([child])
            case ast.Expr(ast.Call(func, args)) if called(child.value) is None and not _draws(func):
                yield from roots([func, *args])
            case ast.Call(args=args) if _trains(child):
                yield from roots(args)


def _made_of(node: ast.stmt) -> Iterator[tuple[str, set[str]]]:
    """Names of what a class is called for or a loop goes through, and the names that it holds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return
    for child in ast.walk(node):
        match child:
            case ast.Assign([ast.Name(name)], ast.Call(ast.Name() | ast.Attribute() as func) as call):
                if ast.unparse(func).rpartition(".")[2][0].isupper():
                    yield name, _all_names(call) - _all_names(func)
            case ast.For(target, source):
                yield from ((name, _all_names(source)) for name in _all_names(target))


def _all_names(node: ast.AST) -> set[str]:
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}


def _with_parts(names: set[str], held: dict[str, set[str]]) -> set[str]:
    """The names, those of their parts, of the parts' parts and so on."""
    found, new = set(names), set(names)
    while new:
        new = set().union(*(held.get(name, set()) for name in new)) - found
        found |= new
    return found


def _trains(node: ast.AST) -> bool:
    words = ast.unparse(node.func).lower() if isinstance(node, ast.Call) else ""
    return "fit" in words or "train" in words


def _draws(func: ast.expr) -> bool:
    return any(name in DRAWS for name in roots([func]))


def roots(nodes: Iterable[ast.expr]) -> Iterator[str]:
    """The name at the bottom of ``name.a[0].b``."""
    for node in nodes:
        while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
            node = node.func if isinstance(node, ast.Call) else node.value
        if isinstance(node, ast.Name):
            yield node.id
