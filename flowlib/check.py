r"""Numerical checks: what notebooks run beside a formula and tests run over every model.

A check takes the formula's tag first, compares numbers, and prints one line with the bound
that held, never the digits, so that the line is the same on every machine. A check that
does not hold raises :class:`CheckFailed` with the size of the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowlib.bijection import Bijection

Values = Tensor | float | Sequence[float]


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
        errors.append(direction(points, context)[1] - torch.linalg.slogdet(dense)[1])
    return largest(torch.cat(errors))


def round_trip_error(bijection: Bijection, z: Tensor, context: Tensor | None = None) -> float:
    r"""Largest :math:`|f^{-1}(f(z)) - z|`, and of the two log-dets' sum, which must be 0."""
    x, log_det = bijection(z, context)
    back, inverse_log_det = bijection.inverse(x, context)
    return largest(torch.cat([(back - z).flatten(), log_det + inverse_log_det]))


def integral(
    density: Callable[[Tensor], Tensor],
    box: Sequence[tuple[float, float]],
    n: int = 400,
    dtype: torch.dtype = torch.float64,
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
        shapes = f"{tuple(left.shape)} and {tuple(right.shape)}"
        raise CheckFailed(f"({tag}) {says}: the sides have shapes {shapes}.")
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
    tag: str,
    log_prob: Callable[[Tensor], Tensor],
    box: Sequence[tuple[float, float]],
    *,
    n: int = 400,
    tol: float = 1e-3,
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


def exercise(name: str, answer: Values | None, expected: Values, *, tol: float | None = None) -> None:
    """Tell a student whether an answer is right, without showing the expected value.

    ``None`` or ``...`` means not answered yet, which is no error: the notebook runs on.

    Raises:
        CheckFailed: if the answer has another shape or is off by more than ``tol``.

    Example:
        >>> exercise("2.4", None, 0.125)
        … exercise 2.4: not answered yet
        >>> exercise("2.4", 1 / 8, 0.125)
        ✓ exercise 2.4: correct
    """
    if answer is None or answer is ...:
        print(f"… exercise {name}: not answered yet")
        return
    given, wanted = _values(answer), _values(expected)
    if given.shape != wanted.shape:
        raise CheckFailed(
            f"Exercise {name}: the answer has shape {tuple(given.shape)}, expected {tuple(wanted.shape)}."
        )
    error = largest(given - wanted)
    if not error <= _tolerance(tol, given, wanted):
        raise CheckFailed(f"Exercise {name}: not right yet; the answer is off by {error:.3g}.")
    print(f"✓ exercise {name}: correct")


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
    if tol is not None:
        return tol
    single = any(value.dtype in (torch.float32, torch.bfloat16, torch.float16) for value in values)
    return 1e-4 if single else 1e-10


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
