"""Makes a statement wrong in one place: a sign, 3 %, a lost term or factor, exp left out, another index."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tools.mutants.program import roots

FACTOR = 1.03
PAIRS = ((ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.Lt, ast.Gt), (ast.LtE, ast.GtE))
OPPOSITE: dict[type, type] = dict(PAIRS) | {b: a for a, b in PAIRS}
LEFT_OUT = {
    *("exp", "log", "abs", "tanh", "sqrt", "sin", "cos", "sigmoid", "softplus", "log1p", "expm1"),
    *("square", "atanh", "log2", "cosh", "sinh"),
}
SWAPPED = {"mean": "sum", "sum": "mean"}
NUMERIC = LEFT_OUT | set(SWAPPED)

# calls that draw, say or choose points: what stands in them is no formula
NO_FORMULA = (
    *("print", "plots", "plt", "ax", "axes", "figure", "range", "enumerate"),
    *("fit", "fit_matching", "fit_reverse_kl"),
)
POINTS = {
    *("rand", "randn", "randint", "randperm", "linspace", "logspace", "arange", "zeros", "ones", "full"),
    *("manual_seed", "view", "reshape"),
}
LIBRARIES = {"torch", "math", "np", "generator", "float", "abs", "len", "round"}


@dataclass(frozen=True)
class Mutant:
    """A statement with one wrong place, its line in the cell, and what changed in words."""

    line: int
    change: str
    statement: ast.stmt = field(repr=False, compare=False)


def mutants(statement: ast.stmt) -> Iterator[Mutant]:
    """Yield the statement once for every way to make one place of it wrong.

    Example:
        >>> [mutant.change for mutant in mutants(ast.parse("y = a - b").body[0])][:3]
        ['a - b → 1.03 * (a - b)', 'a - b → a + b', 'a - b → a']
    """
    for parent, old in _places(ast.Module([statement], [])):
        top = isinstance(parent, ast.stmt | ast.Lambda | ast.Tuple | ast.List)
        for new in _wrong(old, top):
            wrong = copy.deepcopy(statement, {id(old): new})  # as if new were the copy of old
            change = f"{ast.unparse(old)} → {ast.unparse(new)}"
            yield Mutant(old.lineno, change, ast.fix_missing_locations(wrong))


def _wrong(node: ast.AST, top: bool) -> Iterator[ast.AST]:
    """What may stand in a node's place; at the top of a formula 3 % more of it, too."""
    if top and (isinstance(node, ast.BinOp | ast.UnaryOp) or _called(node) in NUMERIC):
        yield _times(node)
    match node:
        case ast.BinOp(left, op, right):
            if type(op) in OPPOSITE:
                yield ast.BinOp(left, OPPOSITE[type(op)](), right)
            if not isinstance(op, ast.MatMult | ast.Mod | ast.FloorDiv):
                yield left
            if isinstance(op, ast.Add | ast.Mult):
                yield right
            if isinstance(op, ast.Sub):
                yield ast.UnaryOp(ast.USub(), right)
            if isinstance(op, ast.Add | ast.Sub):
                yield ast.BinOp(_times(left), op, right)
                yield ast.BinOp(left, op, _times(right))
            if isinstance(op, ast.Pow) and isinstance(right, ast.Constant):
                yield ast.BinOp(left, op, ast.Constant(right.value + 1))
        case ast.UnaryOp(ast.USub(), operand):
            yield operand
        case ast.AugAssign(target, op, value) if type(op) in OPPOSITE:
            yield ast.AugAssign(target, OPPOSITE[type(op)](), value, lineno=node.lineno)
        case ast.Compare(left, [op], [right]) if type(op) in OPPOSITE:
            yield ast.Compare(left, [OPPOSITE[type(op)]()], [right])
        case ast.Subscript(value, ast.Constant(int(n))):
            yield ast.Subscript(value, ast.Constant(n - 1 if n else 1), node.ctx)
        case ast.Call(func=ast.Attribute(value, name), args=args, keywords=keywords):
            inside = args[0] if args else value
            if name in LEFT_OUT and not isinstance(inside, ast.Starred):
                yield inside
            if name in SWAPPED:
                yield ast.Call(ast.Attribute(value, SWAPPED[name], ast.Load()), args, keywords)


def _places(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, Any]]:
    """Every formula in a node and in its parts, with what it is part of."""
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.Attribute) and name == "func":  # as in (a - b).abs()
            yield from _places(value.value, inside)
            if _formula(value.value, inside):
                yield value, value.value
        if name in ("annotation", "returns", "decorator_list", "targets", "keywords", "func"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _spared(node, name, index, child):
                continue
            formula = _formula(child, inside)
            if formula or isinstance(child, ast.AugAssign):
                yield node, child
            if formula or not isinstance(child, ast.expr) or not _numbers_alone(child):
                yield from _places(child, formula)


def _formula(node: ast.AST, inside: bool) -> bool:
    """Whether the node computes something; numbers alone do not, unless they are part of more."""
    kinds = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript, ast.Call)
    return isinstance(node, kinds) and (inside or not _numbers_alone(node))


def _numbers_alone(node: ast.AST) -> bool:
    names = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    return names <= LIBRARIES


def _spared(parent: ast.AST, name: str, index: int, child: ast.AST) -> bool:
    """Whether what stands here is no formula: text, a shape, a bound, points, a drawing."""
    if isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom) or name == "slice":
        return True
    if isinstance(parent, ast.Call):
        first, called = next(roots([parent]), ""), _called(parent)
        bound = called in ("at_most", "at_least") and index == 2
        number = isinstance(child, ast.UnaryOp) and isinstance(child.operand, ast.Constant)  # as in .sum(-1)
        return first in NO_FORMULA or called in POINTS or bound or number
    return isinstance(parent, ast.BinOp) and any(
        isinstance(side, ast.List | ast.Tuple) for side in (parent.left, parent.right)
    )


def _called(node: ast.AST) -> str | None:
    """The last name of what is called: ``exp`` for ``torch.exp(x)``."""
    func = node.func if isinstance(node, ast.Call) else None
    return getattr(func, "attr", None) or getattr(func, "id", None)


def _times(node: ast.AST) -> ast.BinOp:
    return ast.BinOp(ast.Constant(FACTOR), ast.Mult(), node)  # type: ignore[arg-type]
