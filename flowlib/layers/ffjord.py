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

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from flowlib.bijection import Bijection, check_given, draws, may_look
from flowlib.nets import MLP, _spread

Slope = Callable[[float | Tensor, Tensor], Tensor]
Field = Callable[[Tensor, float | Tensor], tuple[Tensor, Tensor]]


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
        return type(self)(2 * self.steps)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(steps={self.steps})"


class Euler(RungeKutta):
    r"""Euler's method, of first order: the cheapest, and exact in one step where paths are straight.

    .. math:: y(t + h) \approx y + h f(t, y)

    Arguments and errors are those of :class:`RungeKutta`; a step takes one evaluation of the slope.

    Example:
        >>> import torch
        >>> Euler(2)(lambda t, y: y, torch.ones(1), 0.0, 1.0)  # 1.5 squared
        tensor([2.2500])
    """

    def __call__(
        self, f: Slope, y: Tensor, start: float, end: float, parameters: Iterable[Tensor] = ()
    ) -> Tensor:
        """Return ``y(end)`` from ``y(start)``; ``parameters`` concern only an adjoint."""
        h = (end - start) / self.steps
        for step in range(self.steps):
            y = torch.add(y, f(start + step * h, y), alpha=h)
        return y


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
        ValueError: if ``tolerance`` is not between 0 and 1.
        RuntimeError: if the steps become too short or too many. (With the adjoint, a failure on the way
            back is an AssertionError of torchdiffeq from inside ``backward``; the remedies are the same.)

    Reference: Chen et al., *Neural Ordinary Differential Equations*, NeurIPS 2018, arXiv:1806.07366.
    """

    def __init__(self, tolerance: float = 1e-6, adjoint: bool = False, max_steps: int = 1000) -> None:
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, such as 1e-6, and came as {tolerance!r}.")
        try:  # say now, not in training, that it is missing
            import torchdiffeq
        except ImportError as missing:
            raise ImportError(
                "Dopri5 needs the package torchdiffeq: pip install torchdiffeq, or take RungeKutta(steps=…)."
            ) from missing
        self.tolerance, self.adjoint, self.max_steps = tolerance, adjoint, max_steps
        self._odeint = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint

    def __call__(
        self, f: Slope, y: Tensor, start: float, end: float, parameters: Iterable[Tensor] = ()
    ) -> Tensor:
        """Return ``y(end)`` from ``y(start)``; an adjoint gives gradients to ``y`` and ``parameters``."""
        if not len(y):  # no point to measure a step by
            return y
        times = torch.tensor([start, end], dtype=y.dtype, device=y.device)
        wanted = {"adjoint_params": tuple(parameters)} if self.adjoint else {}
        tolerances = {"rtol": self.tolerance, "atol": self.tolerance}
        limit = {"max_num_steps": self.max_steps}
        try:
            return self._odeint(f, y, times, method="dopri5", options=limit, **tolerances, **wanted)[-1]
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


class Velocity(nn.Module):
    r"""The velocity :math:`v(z, t, \mathrm{context})` as a multilayer perceptron that sees the time.

    .. math::
        a_1 = \tanh(W_1 [z, t, \mathrm{context}] + b_1), \quad a_{k+1} = \tanh(W_{k+1} a_k + b_{k+1}), \quad
        v = W_{K+1} a_K + b_{K+1}

    It ends in a layer of zeros, so that a new flow is the identity, and begins as sharply in z as an
    :class:`~flowlib.nets.MLP` of d entries. With tanh it is bounded: no point
    runs away, and distant points all but keep their volume.

    Shapes: points ``(B, d)``, velocities ``(B, d)``; the time is a number.

    Args:
        d: the dimension.
        hidden: widths of the hidden layers; with two of them the trace costs least.
        context_features: length of the context; 0 for none.

    Example:
        >>> import torch
        >>> Velocity(2, hidden=(16,))(torch.ones(5, 2), 0.5).shape
        torch.Size([5, 2])
    """

    def __init__(self, d: int, hidden: Sequence[int] = (64, 64), context_features: int = 0) -> None:
        super().__init__()
        self.net = MLP(d + 1, d, hidden, context_features, nn.Tanh)
        first: nn.Linear = self.net.layers[0]  # type: ignore[assignment]
        # the time is no entry of the point; in many dimensions the MLP is blunt already, and once is enough
        _spread(first, (torch.arange(first.in_features) < d).expand_as(first.weight))
        self.d, self.context_features = d, context_features

    def forward(self, z: Tensor, t: float | Tensor, context: Tensor | None = None) -> Tensor:
        time = torch.as_tensor(t, dtype=z.dtype, device=z.device).expand(z.shape[0], 1)
        return self.net(torch.cat([z, time], 1), context)

    def with_trace(self, context: Tensor | None = None) -> Field:
        r"""Return the function from :math:`(z, t)` to the velocity and the trace of its Jacobian.

        With two hidden layers, :math:`D_k = \operatorname{diag}(1 - a_k^2)` and :math:`W_z` the columns of
        :math:`W_1` that z meets,

        .. math::
            \operatorname{tr} \frac{\partial v}{\partial z}
            = \operatorname{tr}(W_3 D_2 W_2 D_1 W_z)
            = \sum_{j, k} (1 - a_{2j}^2)\, M_{jk}\, (1 - a_{1k}^2), \qquad M = W_2 \odot (W_z W_3)^\top

        since a trace is the sum of :math:`(D_2 W_2 D_1)_{jk} (W_z W_3)_{kj}`. M is the same along a whole
        path, so the exact trace costs one product of the size of :math:`W_2` for each point, whatever d is.
        With any other number of hidden layers, other activations or a ``forward`` of a subclass's own it
        is :func:`exact_trace`. The closed form computes in
        the parameters' own precision, whatever ``net.autocast_dtype`` says.

        Shapes: velocities ``(B, d)``, traces ``(B,)``.

        Example:
            >>> import torch
            >>> v, trace = Velocity(2).with_trace()(torch.ones(5, 2), 0.5)
            >>> v.shape, trace.shape
            (torch.Size([5, 2]), torch.Size([5]))
        """
        linear = [layer for layer in self.net.layers if isinstance(layer, nn.Linear)]
        of_tanh = all(isinstance(layer, nn.Tanh) for layer in self.net.layers if layer not in linear)
        if len(linear) != 3 or not of_tanh or type(self).forward is not Velocity.forward:
            return lambda z, t: exact_trace(lambda z: self(z, t, context), z)
        first, second, third = linear
        by_z, by_t, by_context = first.weight.split([self.d, 1, self.context_features], 1)
        start: Tensor = first.bias
        if self.context_features:
            start = torch.addmm(start, check_given(context, self.context_features), by_context.T)
        m = 16 * second.weight * (by_z @ third.weight).T
        # with s = σ(2a), which takes torch half the time, tanh(a) = 2 s - 1 and 1 - tanh²(a) = 4 (s - s²):
        # the factors go into the weights, once for the whole path
        start, by_z, by_t = 2 * start, 2 * by_z, 2 * by_t[:, 0]
        bias_2, weight_2 = 2 * (second.bias - second.weight.sum(1)), 4 * second.weight
        bias_3, weight_3 = third.bias - third.weight.sum(1), 2 * third.weight

        def velocity_and_trace(z: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
            s_1 = torch.sigmoid(torch.addmm(start + t * by_t, z, by_z.T))
            s_2 = torch.sigmoid(torch.addmm(bias_2, s_1, weight_2.T))
            trace = ((s_1 - s_1 * s_1) @ m.T * (s_2 - s_2 * s_2)).sum(1)
            return torch.addmm(bias_3, s_2, weight_3.T), trace

        return velocity_and_trace


def exact_trace(field: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    r"""The value of any field and the exact trace of its Jacobian, by d directional derivatives.

    .. math::
        \operatorname{tr} \frac{\partial v}{\partial z}
        = \sum_{i=1}^{d} e_i^\top \frac{\partial v}{\partial z}\,e_i

    Forward-mode automatic differentiation along each unit vector :math:`e_i`, all at once.

    Shapes: ``z`` and the field ``(B, *event)``, traces ``(B,)``; each row of the field may depend on that
    row of ``z`` alone.

    Example:
        >>> import torch
        >>> exact_trace(lambda z: z**2, torch.tensor([[1.0, 2.0]]))[1]
        tensor([6.])
    """
    event = z.shape[1:]
    basis = torch.eye(event.numel(), dtype=z.dtype, device=z.device).reshape(-1, *event)
    along = torch.func.vmap(lambda e: _estimate(field, z, e.expand_as(z)), out_dims=(None, 0))  # type: ignore
    value, terms = along(basis)
    return value, terms.sum(0)


def _estimate(field: Callable[[Tensor], Tensor], z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    r"""The value of a field and :math:`\varepsilon^\top A\,\varepsilon` of its Jacobian A, for one probe."""
    value, derivative = torch.func.jvp(field, (z,), (probe,))  # type: ignore[misc]
    return value, (probe * derivative).flatten(1).sum(1)


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
    call and kept along the whole path, so that the solver sees a smooth right-hand side. (It is the CPU's
    generator; in train mode on a GPU, which would have to wait, it is the GPU's own.) Then ``log_prob`` is
    an unbiased estimate and ``is_exact`` is False.

    Shapes: points ``(B, *event)``, log-dets ``(B,)``.

    Args:
        velocity: called as ``velocity(z, t, context)``; returns the shape of ``z``, each row on its own.
            Its method ``with_trace(context)``, if it has one, returns a function of ``(z, t)`` that gives
            the velocity and its trace.
        trace: ``"exact"``, or the probe's distribution: ``"gaussian"`` or ``"rademacher"`` (±1, of the
            smaller variance).
        solver: :class:`RungeKutta` (8 steps if not given), :class:`Euler` or :class:`Dopri5`. A trained
            layer may be given another, ``layer.solver = Euler(4)``.

    Raises:
        ValueError: if ``trace`` is none of these, or the context needs a gradient that the adjoint does not
            give.
        RuntimeError: if the solver fails; the message says what to change. In train mode on a GPU, which a
            look at the solution would stall, in ``torch.compile`` and in ``torch.func`` it is NaN instead.

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
        self, velocity: Callable[..., Tensor], trace: str = "exact", solver: RungeKutta | Dopri5 | None = None
    ) -> None:
        super().__init__()
        if trace not in ("exact", "gaussian", "rademacher"):
            raise ValueError(f"trace must be one of exact, gaussian, rademacher and came as {trace!r}.")
        self.velocity = velocity
        self.trace = trace
        self.solver = RungeKutta() if solver is None else solver
        self.is_exact = trace == "exact"

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._solve(self._velocity_and_trace(z, context), z, 0.0, 1.0, self.solver)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._solve(self._velocity_and_trace(x, context), x, 1.0, 0.0, self.solver)

    @torch.no_grad()
    def solver_error(
        self, points: Tensor, context: Tensor | None = None, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        r"""Estimate the solver's error of each point and of each log-determinant.

        .. math::
            y_h = y + C h^4 + O(h^5) \quad\Longrightarrow\quad
            |y_h - y_{h/2}| = \tfrac{15}{16} |C| h^4 + O(h^5)

        It is the change when the step is halved (for :class:`Euler`, half of an error that falls as h; for
        :class:`Dopri5`, when the tolerance is divided by 16), good once the steps are so short that the
        error falls as the formula says.

        Args:
            points: latents, or data with ``inverse=True``, shape ``(B, *event)``.
            context: one row for each point, as for ``forward``.
            inverse: whether to measure ``inverse`` instead of ``forward``.

        Returns:
            the errors' lengths in the points and sizes in the log-determinants, both ``(B,)``.
        """
        ends = (1.0, 0.0) if inverse else (0.0, 1.0)
        field = self._velocity_and_trace(points, context)
        coarse = self._solve(field, points, *ends, self.solver)
        fine = self._solve(field, points, *ends, self.solver.finer())
        return (coarse[0] - fine[0]).flatten(1).norm(dim=1), (coarse[1] - fine[1]).abs()

    def _solve(
        self, field: Field, points: Tensor, start: float, end: float, solver: RungeKutta | Dopri5
    ) -> tuple[Tensor, Tensor]:
        """Solve from time ``start`` to ``end``; the last column of the state is the log-determinant."""

        def slope(t: float | Tensor, state: Tensor) -> Tensor:
            velocity, trace = field(state[:, :-1].reshape(points.shape), t)
            return torch.cat([velocity.flatten(1), trace[:, None]], 1)

        state = torch.cat([points.flatten(1), points.new_zeros(points.shape[0], 1)], 1)
        state = solver(slope, state, start, end, self.parameters())
        if may_look(self, points) and not state.isfinite().all():
            raise RuntimeError(
                f"The solution from t = {start:g} to {end:g} is not finite with {solver!r}: the velocity is "
                "too steep for its steps. Take more steps, or train with a smaller learning rate or clipping."
            )
        return state[:, :-1].reshape(points.shape), state[:, -1]

    def _velocity_and_trace(self, points: Tensor, context: Tensor | None) -> Field:
        r"""The function from (z, t) to the velocity and the trace of :math:`\partial v/\partial z`."""
        if getattr(self.solver, "adjoint", False) and context is not None and context.requires_grad:
            raise ValueError("The adjoint gives no gradient to the context; take adjoint=False or detach it.")
        if self.trace == "exact" and hasattr(self.velocity, "with_trace"):
            return self.velocity.with_trace(context)
        if self.trace == "exact":
            return lambda z, t: exact_trace(lambda z: self.velocity(z, t, context), z)
        probe = draws(self, torch.randn, points.shape, points)
        if self.trace == "rademacher":
            probe = probe.sign()
        return lambda z, t: _estimate(lambda z: self.velocity(z, t, context), z, probe)


__all__ = ["FFJORD", "Dopri5", "Euler", "RungeKutta", "Velocity", "exact_trace"]
