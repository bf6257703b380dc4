r"""Continuous flows: a point follows a velocity field, and its log-density follows the trace.

.. math::
    \frac{dz(t)}{dt} = v(z(t), t), \quad z = z(0), \quad x = z(1), \qquad
    \frac{d \log p(z(t))}{dt} = -\operatorname{tr} \frac{\partial v}{\partial z}(z(t), t)

The second formula, the *instantaneous change of variables* (Chen et al., 2018), follows from
:math:`\log|\det(I + h\,\partial v/\partial z)| = h \operatorname{tr}\,\partial v/\partial z + O(h^2)`.
So the velocity needs no special form: any smooth network gives an invertible map, because a
differential equation can be solved backwards in time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowlib.bijection import Bijection
from flowlib.ode import Dopri5, RungeKutta
from flowlib.velocity import Velocity, exact_trace

TRACES = ("exact", "gaussian", "rademacher")


class FFJORD(Bijection):
    r"""The map :math:`x = z(1)` of the differential equation :math:`dz/dt = v(z, t)`, :math:`z(0) = z`.

    .. math::
        \text{forward:}\quad & x = z + \int_0^1 v(z(t), t)\,dt, \quad
        \log|\det| = \int_0^1 \operatorname{tr} \frac{\partial v}{\partial z}\,dt \\
        \text{inverse:}\quad & z = x + \int_1^0 v(z(t), t)\,dt, \quad
        \log|\det| = \int_1^0 \operatorname{tr} \frac{\partial v}{\partial z}\,dt

    Point and log-determinant are solved for together. Both are right up to the **solver's error**:
    ``inverse`` undoes ``forward``, and the log-determinant is that of the map, only to within what
    :meth:`solver_error` estimates, which is far above rounding for few steps in float64.

    The trace is exact, or Hutchinson's estimate. The exact one is that of the velocity's own
    ``with_trace`` where it has one (for :class:`Velocity` it costs about as much as
    the velocity itself), else it costs d directional derivatives of the velocity (forward-mode
    automatic differentiation). The estimate costs one,

    .. math::
        \operatorname{tr} A = \mathbb E\left[\varepsilon^\top A\,\varepsilon\right], \qquad
        \mathbb E\,\varepsilon = 0, \quad \mathbb E\,\varepsilon\varepsilon^\top = I

    with one probe :math:`\varepsilon` for each point, drawn from torch's global generator once in a
    call and kept along the whole path, so that the solver sees a smooth right-hand side. Then
    ``log_prob`` is an unbiased estimate and ``is_exact`` is False.

    Shapes: points ``(B, *event)``, log-dets ``(B,)``.

    Args:
        velocity: called as ``velocity(z, t, context)``; returns the shape of ``z``, each row on its own.
            Its method ``with_trace(context)``, if it has one, returns a function of ``(z, t)`` that gives
            the velocity and its trace.
        trace: ``"exact"``, or the probe's distribution: ``"gaussian"`` or ``"rademacher"`` (±1, of the
            smaller variance).
        solver: :class:`~flowlib.ode.RungeKutta` (8 steps if not given) or :class:`~flowlib.ode.Dopri5`.

    Raises:
        ValueError: if ``trace`` is none of these, the velocity has another shape, or the context needs a
            gradient that the adjoint does not give.
        RuntimeError: if the solver fails; the message says what to change.

    Example:
        >>> import torch
        >>> layer = FFJORD(lambda z, t, context: 0.5 * z)
        >>> x, log_det = layer(torch.ones(1, 2))
        >>> x, log_det  # exp(0.5) and 2 · 0.5
        (tensor([[1.6487, 1.6487]]), tensor([1.]))

    Reference: Grathwohl et al., *FFJORD*, ICLR 2019, arXiv:1810.01367; Chen et al., *Neural Ordinary
    Differential Equations*, NeurIPS 2018, arXiv:1806.07366.
    """

    def __init__(
        self,
        velocity: Callable[..., Tensor],
        trace: str = "exact",
        solver: RungeKutta | Dopri5 | None = None,
    ) -> None:
        super().__init__()
        if trace not in TRACES:
            raise ValueError(f"trace must be one of {', '.join(TRACES)} and came as {trace!r}.")
        self.velocity = velocity
        self.trace = trace
        self.solver = RungeKutta() if solver is None else solver
        self.is_exact = trace == "exact"

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._point_and_log_det(z, context, 0.0, 1.0, self._probe(z), self.solver)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._point_and_log_det(x, context, 1.0, 0.0, self._probe(x), self.solver)

    @torch.no_grad()
    def solver_error(
        self, points: Tensor, context: Tensor | None = None, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        r"""Estimate the solver's error of each point and of each log-determinant.

        .. math::
            y_h = y + C h^4 + O(h^5) \quad\Longrightarrow\quad
            |y_h - y_{h/2}| = \tfrac{15}{16} |C| h^4 + O(h^5)

        It is the change when the step is halved (for :class:`~flowlib.ode.Dopri5`, when the tolerance
        is divided by 16), good once the steps are so short that the error falls as the formula says.

        Args:
            points: latents, or data with ``inverse=True``, shape ``(B, *event)``.
            context: one row for each point, as for ``forward``.
            inverse: whether to measure ``inverse`` instead of ``forward``.

        Returns:
            the errors' lengths in the points and sizes in the log-determinants, both ``(B,)``.
        """
        ends = (1.0, 0.0) if inverse else (0.0, 1.0)
        probe = self._probe(points)
        coarse, fine = (
            self._point_and_log_det(points, context, *ends, probe, solver)
            for solver in (self.solver, self.solver.finer())
        )
        return (coarse[0] - fine[0]).flatten(1).norm(dim=1), (coarse[1] - fine[1]).abs()

    def _point_and_log_det(
        self,
        points: Tensor,
        context: Tensor | None,
        start: float,
        end: float,
        probe: Tensor | None,
        solver: RungeKutta | Dopri5,
    ) -> tuple[Tensor, Tensor]:
        """Solve from time ``start`` to ``end``; the last column of the state is the log-determinant."""
        if getattr(solver, "adjoint", False) and context is not None and context.requires_grad:
            raise ValueError(
                "The adjoint gives no gradient to the context, and the context needs one; "
                "use Dopri5(adjoint=False), or context.detach()."
            )

        velocity_and_trace = self._velocity_and_trace(context, probe)

        def slope(t: float | Tensor, state: Tensor) -> Tensor:
            velocity, trace = velocity_and_trace(state[:, :-1].reshape(points.shape), t)
            return torch.cat([velocity.flatten(1), trace[:, None]], 1)

        state = torch.cat([points.flatten(1), points.new_zeros(len(points), 1)], 1)
        parameters = self.velocity.parameters() if isinstance(self.velocity, nn.Module) else ()
        state = solver(slope, state, start, end, parameters)
        if not torch.compiler.is_compiling() and not state.isfinite().all():
            raise RuntimeError(
                f"The solution from t = {start:g} to {end:g} is not finite with {solver!r}: the velocity is "
                "too steep for its steps. Take more steps, or train with a smaller learning rate or clipping."
            )
        return state[:, :-1].reshape(points.shape), state[:, -1]

    def _velocity_and_trace(
        self, context: Tensor | None, probe: Tensor | None
    ) -> Callable[[Tensor, float | Tensor], tuple[Tensor, Tensor]]:
        r"""The function from (z, t) to the velocity and the trace of :math:`\partial v/\partial z`."""
        if probe is None and hasattr(self.velocity, "with_trace"):
            return self.velocity.with_trace(context)

        def checked(z: Tensor, t: float | Tensor) -> Tensor:
            velocity = self.velocity(z, t, context)
            if velocity.shape != z.shape:
                raise ValueError(
                    f"The velocity has shape {tuple(velocity.shape)}; it must have that of the points, "
                    f"{tuple(z.shape)}."
                )
            return velocity

        def estimated(z: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
            velocity, derivative = torch.func.jvp(lambda z: checked(z, t), (z,), (probe,))  # type: ignore[misc]
            return velocity, (probe * derivative).flatten(1).sum(1)

        def exact(z: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
            return exact_trace(lambda z: checked(z, t), z)

        return exact if probe is None else estimated

    def _probe(self, points: Tensor) -> Tensor | None:
        """Draws made on the CPU in float64, as those of the bases are; none for the exact trace."""
        if self.trace == "exact":
            return None
        if self.trace == "gaussian":
            return torch.randn(points.shape, dtype=torch.float64, device="cpu").to(points)
        return (2 * torch.randint(2, points.shape, device="cpu") - 1).to(points)


__all__ = ["FFJORD", "Velocity", "exact_trace"]
