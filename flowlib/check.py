r"""Numerical checks: what notebooks run beside a formula and tests run over every model.

A check takes the formula's tag first, compares numbers, and prints one line with the bound
that held, never the digits, so that the line is the same on every machine. A check that
does not hold raises :class:`CheckFailed` with the size of the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flowlib.bijection import Bijection

Values = Tensor | float | Sequence[float]
Answer = Values | Callable[..., Any] | None
Box = Sequence[tuple[float, float]]
Points = Tensor | tuple[Tensor, ...]


class CheckFailed(AssertionError):
    """A formula and its check disagree; the message says by how much."""


# --- what is measured: numbers, for tests and for the checks below --------------------


def jacobian(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    r"""Return the Jacobians :math:`\partial f_i / \partial z_j` by autograd, shape ``(B, d, d)``.

    Args:
        function: maps ``(B, *event)`` to ``(B, *event)``, each point on its own.
        points: where, shape ``(B, *event)``.

    Example:
        >>> import torch
        >>> jacobian(lambda z: z**2, torch.tensor([[1.0, 3.0]]))
        tensor([[[2., 0.],
                 [0., 6.]]])
    """
    # no point bears on another's image, so the sum over the points keeps every derivative apart
    rows = torch.autograd.functional.jacobian(lambda p: function(p).flatten(1).sum(0), points)
    return rows.flatten(2).transpose(0, 1)


def log_det_error(bijection: Bijection, z: Tensor, context: Tensor | None = None) -> float:
    r"""Largest difference, over both directions, between a layer's log-det and autograd's.

    Autograd's is :math:`\log|\det J|` of the full Jacobian, by ``torch.linalg.slogdet``.
    """
    x = bijection(z, context)[0].detach()
    errors = []
    for direction, points in ((bijection, z), (bijection.inverse, x)):
        dense = jacobian(lambda p, f=direction: f(p, context)[0], points)  # type: ignore[misc]
        errors.append(_one_each(direction(points, context)[1], z) - torch.linalg.slogdet(dense)[1])
    return largest(torch.cat(errors))


def round_trip_error(bijection: Bijection, z: Tensor, context: Tensor | None = None) -> float:
    r"""Largest :math:`|f^{-1}(f(z)) - z|`, and of the two log-dets' sum, which must be 0."""
    x, log_det = bijection(z, context)
    back, inverse_log_det = bijection.inverse(x, context)
    if back.shape != z.shape:
        raise CheckFailed(f"The points have shape {tuple(z.shape)} and come back as {tuple(back.shape)}.")
    both = _one_each(log_det, z) + _one_each(inverse_log_det, z)
    return largest(torch.cat([(back - z).flatten(), both]))


def _one_each(log_det: Tensor, z: Tensor) -> Tensor:
    if log_det.shape != z.shape[:1]:
        raise CheckFailed(
            f"The log-determinant must be one number for each point, of shape ({len(z)},), and has shape "
            f"{tuple(log_det.shape)}."
        )
    return log_det


def integral(
    density: Callable[[Tensor], Tensor], box: Box, n: int = 400, dtype: torch.dtype = torch.float64
) -> float:
    r"""Integrate :math:`\int p(x)\,dx` over a box by the midpoint rule on ``n`` cells a side.

    Args:
        density: maps points ``(N, d)`` to values ``(N,)``.
        box: one ``(low, high)`` pair for each dimension.
    """
    sides = [low + (high - low) * (torch.arange(n, dtype=dtype) + 0.5) / n for low, high in box]
    cell = torch.tensor([(high - low) / n for low, high in box], dtype=torch.float64).prod()
    points = torch.cartesian_prod(*sides).reshape(-1, len(box))
    with torch.no_grad():
        total = sum(density(chunk).double().sum() for chunk in points.split(1 << 16))
    return float(total * cell)


def largest(difference: Values) -> float:
    """Largest absolute entry; NaN if any entry is NaN, and 0 for no entries."""
    values = _values(difference).abs().flatten()
    return float(values.max()) if len(values) else 0.0


# --- what is claimed: one tag, one printed line ----------------------------------------


def identity(tag: str, left: Values, right: Values, *, says: str, tol: float | None = None) -> None:
    """Check that two expressions are equal.

    Args:
        tag: the formula's tag, such as ``"6.3"``.
        left, right: the two sides, of one shape (or one of them a number).
        says: the claim in words, for the printed line.
        tol: allowed absolute difference; 1e-10 in float64 and 1e-4 in float32 if not given.

    Raises:
        CheckFailed: if the largest difference exceeds ``tol``, is NaN, or shapes disagree.

    Example:
        >>> import math
        >>> identity("2.1", math.log(6), math.log(2) + math.log(3), says="log 6 = log 2 + log 3")
        ✓ (2.1) log 6 = log 2 + log 3: equal to within 1e-10
    """
    left, right = _some(tag, says, left), _some(tag, says, right)
    if left.dim() and right.dim() and left.shape != right.shape:
        raise CheckFailed(
            f"({tag}) {says}: the sides have shapes {tuple(left.shape)} and {tuple(right.shape)}."
        )
    _close(tag, says, largest(left - right), _tolerance(tol, left, right), "equal to within")


def log_det(
    tag: str, bijection: Bijection, z: Tensor, *, context: Tensor | None = None, tol: float | None = None
) -> None:
    """Check a layer's log-determinant against autograd's Jacobian, in both directions."""
    says = "log-det against autograd's Jacobian"
    tol = _tolerance(tol, _some(tag, says, z))
    _close(tag, says, log_det_error(bijection, z, context), tol, "equal to within")


def round_trip(
    tag: str, bijection: Bijection, z: Tensor, *, context: Tensor | None = None, tol: float | None = None
) -> None:
    r"""Check that :math:`f^{-1}(f(z)) = z` and that the two log-dets cancel."""
    says = "inverse(forward(z)) gives z back"
    tol = _tolerance(tol, _some(tag, says, z))
    _close(tag, says, round_trip_error(bijection, z, context), tol, "to within")


def integrates_to_one(
    tag: str, log_prob: Callable[[Tensor], Tensor], box: Box, *, n: int = 400, tol: float = 1e-3
) -> None:
    r"""Check that :math:`\int e^{\log p(x)}\,dx = 1` over a box that holds nearly all the mass."""
    error = abs(integral(lambda x: log_prob(x).exp(), box, n) - 1)
    _close(tag, "the density integrates to one", error, tol, "to within")


def at_most(tag: str, value: Values, bound: float, *, says: str) -> None:
    """Check that every entry of ``value`` is at most ``bound``: for claims with an inequality."""
    value = _some(tag, says, value)
    _claim(tag, says, bool((value <= bound).all()), f"at most {bound:g}", float(value.max()))


def at_least(tag: str, value: Values, bound: float, *, says: str) -> None:
    """Check that every entry of ``value`` is at least ``bound``: for what must be large."""
    value = _some(tag, says, value)
    _claim(tag, says, bool((value >= bound).all()), f"at least {bound:g}", float(value.min()))


def exercise(
    name: str, answer: Answer, expected: Answer = None, *, at: Points = (), tol: float | None = None
) -> None:
    """Tell a student whether an answer is right, without showing the expected one.

    A value is compared with a value. A function is judged by what it does: it must give what ``expected``,
    another function, gives at points that the exercise does not show. So must a layer if ``expected`` is
    given, and in any case its log-det must be autograd's there and its inverse lead back. ``None`` or ``...``
    means not answered yet, which is no error: the notebook runs on.

    Args:
        name: the exercise's number, such as ``"6.3"``.
        answer: the student's value, function or :class:`~flowlib.bijection.Bijection`.
        expected: the right value or function; a layer counts as one, from ``z`` to ``(x, log_det)``.
        at: the points, for functions and layers: one tensor for each argument.
        tol: allowed absolute difference, as in :func:`identity`.

    Raises:
        CheckFailed: if the answer has another shape, is off by more than ``tol``, or is ``expected`` itself.

    Example:
        >>> exercise("2.4", None, 0.125)
        … exercise 2.4: not answered yet
        >>> exercise("2.4", 1 / 8, 0.125)
        ✓ exercise 2.4: correct
        >>> exercise("2.5", lambda z: z * z, torch.square, at=torch.randn(5))
        ✓ exercise 2.5: correct
        >>> from flowlib import Scale
        >>> exercise("7.3", Scale(2), at=torch.randn(5, 2))
        ✓ exercise 7.3: correct
    """
    if answer is None or answer is ...:
        print(f"… exercise {name}: not answered yet")
        return
    if answer is expected if isinstance(expected, Tensor) else callable(answer) and answer == expected:
        raise CheckFailed(f"Exercise {name}: the answer is what it is compared with; find your own.")
    if expected is None and not isinstance(answer, Bijection):
        raise CheckFailed(f"Exercise {name}: the answer must be a layer, such as Scale(2), not {answer!r}.")
    z = at if isinstance(at, tuple) else (at,)
    given, wanted = [[] if expected is None else _results(side, z) for side in (answer, expected)]
    shapes = [" and ".join(str(tuple(result.shape)) for result in side) for side in (given, wanted)]
    if shapes[0] != shapes[1]:
        raise CheckFailed(f"Exercise {name}: the answer has shape {shapes[0]}, expected {shapes[1]}.")
    errors = [("the answer", largest(a - b)) for a, b in zip(given, wanted, strict=True)]
    if isinstance(answer, Bijection):
        errors += [("its log-det", log_det_error(answer, *z)), ("its inverse", round_trip_error(answer, *z))]
    for what, error in errors:
        if not error <= _tolerance(tol, *given, *wanted, *z):
            raise CheckFailed(f"Exercise {name}: not right yet; {what} is off by {error:.3g}.")
    print(f"✓ exercise {name}: correct")


def _results(answer: Any, points: tuple[Tensor, ...]) -> list[Tensor]:
    """What is compared: a value, or all that a function gives for copies of the points."""
    results = answer(*(point.clone() for point in points)) if callable(answer) else [answer]
    return [_values(result) for result in ([results] if isinstance(results, Tensor) else results)]


def _values(values: Values) -> Tensor:
    """A tensor in its own precision and Python numbers in double, all on the CPU."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    return torch.as_tensor(values, dtype=torch.float64)


def _some(tag: str, says: str, values: Values) -> Tensor:
    """The values of a claim; a claim about no numbers would hold whatever it says."""
    values = _values(values)
    if not values.numel():
        raise CheckFailed(f"({tag}) {says}: there are no numbers to compare.")
    return values


def _tolerance(tol: float | None, *values: Tensor) -> float:
    single = any(value.dtype in (torch.float32, torch.bfloat16, torch.float16) for value in values)
    return tol if tol is not None else 1e-4 if single else 1e-10


def _close(tag: str, says: str, error: float, tol: float, relation: str) -> None:
    _claim(tag, says, error <= tol, f"{relation} {tol:g}", error)


def _claim(tag: str, says: str, holds: bool, bound: str, found: float) -> None:
    if not holds:
        raise CheckFailed(f"({tag}) {says}: expected {bound}, found {found:.6g}.")
    print(f"✓ ({tag}) {says}: {bound}")


__all__ = [
    "CheckFailed", "at_least", "at_most", "exercise", "identity", "integral", "integrates_to_one", "jacobian",
    "largest", "log_det", "log_det_error", "round_trip", "round_trip_error",
]  # fmt: skip
