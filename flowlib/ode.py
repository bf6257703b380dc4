r"""Solvers of :math:`dy/dt = f(t, y)` for continuous flows: fixed steps, and steps of their own choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType

import torch
from torch import Tensor

Slope = Callable[[float | Tensor, Tensor], Tensor]


class RungeKutta:
    r"""The classical Runge–Kutta method of fourth order, with ``steps`` equal steps of length h.

    .. math::
        k_1 &= f(t, y), & k_2 &= f(t + \tfrac h2, y + \tfrac h2 k_1), \\
        k_3 &= f(t + \tfrac h2, y + \tfrac h2 k_2), & k_4 &= f(t + h, y + h k_3), \\
        y(t + h) &\approx y + \tfrac h6 (k_1 + 2 k_2 + 2 k_3 + k_4)

    The error falls as :math:`h^4`: twice the steps, a sixteenth of the error. Autograd passes through
    the steps, so that gradients are those of the numbers that were computed.

    Args:
        steps: how many; each takes four evaluations of the slope.

    Raises:
        ValueError: if ``steps`` is not a positive whole number.

    Example:
        >>> import torch
        >>> RungeKutta(8)(lambda t, y: y, torch.ones(1), 0.0, 1.0)  # e
        tensor([2.7183])

    Reference: Hairer, Nørsett and Wanner, *Solving Ordinary Differential Equations I*, section II.1.
    """

    def __init__(self, steps: int = 8) -> None:
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps must be a whole number, 1 or more, and came as {steps!r}.")
        self.steps = steps

    def __call__(
        self, f: Slope, y: Tensor, start: float, end: float, parameters: Iterable[Tensor] = ()
    ) -> Tensor:
        """Return ``y(end)`` from ``y(start)``; ``parameters`` concern only an adjoint."""
        h = (end - start) / self.steps
        for step in range(self.steps):
            t = start + step * h
            k1 = f(t, y)
            k2 = f(t + h / 2, torch.add(y, k1, alpha=h / 2))  # y + h/2 k1 in one operation
            k3 = f(t + h / 2, torch.add(y, k2, alpha=h / 2))
            k4 = f(t + h, torch.add(y, k3, alpha=h))
            y = torch.add(torch.add(y, k1 + k4, alpha=h / 6), k2 + k3, alpha=h / 3)
        return y

    def finer(self) -> RungeKutta:
        """The same solver with half the step."""
        return RungeKutta(2 * self.steps)

    def __repr__(self) -> str:
        return f"RungeKutta(steps={self.steps})"


class Dopri5:
    r"""The adaptive method of Dormand and Prince, of fifth order, from the package torchdiffeq.

    A step is taken when its own estimated error is below :math:`\mathrm{tolerance} \cdot (1 + |y|)`, in
    the root mean square over the whole batch. So the error at the end, which adds up over the steps, may
    be some tens of times the tolerance, and a point's result depends that little on the others beside it.

    Args:
        tolerance: absolute and relative.
        adjoint: whether gradients come from solving the adjoint equation backwards, in memory that does
            not grow with the steps, instead of from autograd through the steps. They are then right only
            to within the tolerance, and the context gets none.
        max_steps: after that many the solution counts as failed.

    Raises:
        ImportError: if torchdiffeq is not installed.
        ValueError: if ``tolerance`` or ``max_steps`` is not positive.
        RuntimeError: if the steps become too short or too many. (With the adjoint, a failure on the way
            back is an AssertionError of torchdiffeq from inside ``backward``; the remedies are the same.)

    Reference: Chen et al., *Neural Ordinary Differential Equations*, NeurIPS 2018, arXiv:1806.07366.
    """

    def __init__(self, tolerance: float = 1e-6, adjoint: bool = False, max_steps: int = 1000) -> None:
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, such as 1e-6, and came as {tolerance!r}.")
        if not isinstance(max_steps, int) or max_steps < 1:
            raise ValueError(f"max_steps must be a whole number, 1 or more, and came as {max_steps!r}.")
        _torchdiffeq()  # say now, not in training, that it is missing
        self.tolerance, self.adjoint, self.max_steps = tolerance, adjoint, max_steps

    def __call__(
        self, f: Slope, y: Tensor, start: float, end: float, parameters: Iterable[Tensor] = ()
    ) -> Tensor:
        """Return ``y(end)`` from ``y(start)``; an adjoint gives gradients to ``y`` and ``parameters``."""
        if not len(y):  # no point to measure a step by
            return y
        times = torch.tensor([start, end], dtype=y.dtype, device=y.device)
        keywords = {
            "rtol": self.tolerance,
            "atol": self.tolerance,
            "method": "dopri5",
            "options": {"max_num_steps": self.max_steps},
        }
        try:
            if self.adjoint:
                wanted = tuple(parameter for parameter in parameters if parameter.requires_grad)
                return _torchdiffeq().odeint_adjoint(f, y, times, adjoint_params=wanted, **keywords)[-1]
            return _torchdiffeq().odeint(f, y, times, **keywords)[-1]
        except AssertionError as failed:  # how torchdiffeq says that it gave up
            raise RuntimeError(
                f"{self!r} did not get from t = {start:g} to {end:g}: {failed}. Give a larger tolerance or "
                "max_steps, compute in float64, or take a smoother velocity (smaller weights)."
            ) from failed

    def finer(self) -> Dopri5:
        """The same solver with a sixteenth of the tolerance."""
        return Dopri5(self.tolerance / 16, self.adjoint, self.max_steps)

    def __repr__(self) -> str:
        return f"Dopri5(tolerance={self.tolerance:g}, adjoint={self.adjoint}, max_steps={self.max_steps})"


def _torchdiffeq() -> ModuleType:
    try:
        import torchdiffeq
    except ImportError as missing:
        raise ImportError(
            "Dopri5 needs the package torchdiffeq; install it with pip install torchdiffeq, or take "
            "RungeKutta(steps=…), which needs nothing."
        ) from missing
    return torchdiffeq


__all__ = ["Dopri5", "RungeKutta"]
