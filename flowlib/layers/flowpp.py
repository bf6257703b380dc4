r"""Flow++: a coupling that bends each entry along the distribution function of a mixture.

The curve is in :mod:`flowlib.layers.flowpp` and the network for images, which looks at all pixels at
once, in :mod:`flowlib.nets` (Ho, Chen, Srinivas, Duan and Abbeel, 2019). The paper's third part,
variational dequantisation, is :class:`flowlib.layers.dequantize.VariationalDequantize`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from flowlib.bijection import values_can_be_read
from flowlib.layers.coupling import _Coupling

# 15 are the most that log-scales up to 1 were seen to take, 30 with up to 3
_STEPS = 200  # bisection alone, every second step, ends before that
_TRACED_STEPS = 40  # a compiled graph holds each of them, and makes all of them


def mixture_logit(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    r"""Evaluate the curve :math:`g` at :math:`x`, and the logarithm of its slope.

    .. math::
        g(x) = \operatorname{logit} F(x) = \log\frac{F(x)}{1 - F(x)}, \qquad
        F(x) = \sum_{k=1}^{K} \pi_k\,\sigma(t_k), \quad t_k = \frac{x - \mu_k}{s_k}

    .. math::
        g'(x) = \frac{F'(x)}{F(x)\,(1 - F(x))}, \qquad
        F'(x) = \sum_k \pi_k\,\frac{\sigma(t_k)\,\sigma(-t_k)}{s_k}

    with :math:`\pi = \operatorname{softmax}(\mathrm{logits})`. All sums are taken as logarithms, and so is
    :math:`1 - F(x) = \sum_k \pi_k\,\sigma(-t_k)`, so no digit is lost in either tail. Every logarithm is
    taken relative to the logistic at :math:`c`, the :math:`t_k` nearest 0 (or 0 between two of them): since
    :math:`c = \log\sigma(c) - \log\sigma(-c)`, that changes nothing but rounding, and components which are
    all the standard logistic give :math:`g(x) = x` to the last bit.

    The slope is at most :math:`\max_k 1/s_k`, since the mean over :math:`\pi` of :math:`\sigma - \sigma^2` is
    at most :math:`F - F^2` (Jensen).

    Shapes: ``x`` is ``(…)``, the parameters ``(K, …)``; both results are as ``x``.

    Example:
        >>> import torch
        >>> same = torch.zeros(3)  # three times the standard logistic
        >>> mixture_logit(torch.tensor(-7.5), same, same, same)
        (tensor(-7.5000), tensor(0.))

    Reference: Ho et al., *Flow++*, ICML 2019, arXiv:1902.00275, section 3.2.
    """
    t = (x - mean) * torch.exp(-log_scale)
    c = _nearest_zero(t)
    below = logsigmoid(t) - logsigmoid(c)
    above = logsigmoid(-t) - logsigmoid(-c)
    log_below, log_above, log_density, log_total = (
        torch.logsumexp(logits + terms, 0)
        for terms in (below, above, below + above - log_scale, torch.zeros_like(below))
    )
    return c + (log_below - log_above), (log_density - log_below) - (log_above - log_total)


def solve_mixture_logit(y: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    r"""Solve :math:`g(x) = y` for :math:`x`, to machine precision.

    **Bracket.** Component k alone would give the root :math:`x_k = \mu_k + s_k y`. At the smallest of them
    every :math:`t_k \le y`, so :math:`F \le \sigma(y)` and :math:`g \le y`; at the largest every
    :math:`t_k \ge y`, so :math:`g \ge y`. As :math:`g` is continuous and increasing, its one root is between.

    **Steps.** Newton's, held inside the bracket, from the end that is right in the tail. Where the last one
    has not at least halved the distance from :math:`y`, bisection follows. So of two steps one halves the
    bracket or the distance: the search ends.

    The search is not differentiated: at its end :math:`x` is a number that knows nothing of :math:`y` and the
    parameters. Two more steps of Newton's, which are, keep the value and teach it the derivatives:
    the first step :math:`\partial x/\partial y = 1/g'(x)` and
    :math:`\partial x/\partial\theta = -(\partial g/\partial\theta)/g'(x)`, the second those up to the third
    order, since Newton's method squares what is left of an error.

    Shapes: ``y`` is ``(…)``, the parameters ``(K, …)``, and the root is as ``y``. NaN gives NaN.

    Raises:
        RuntimeError: if an equation is not solved to rounding. Under ``torch.compile`` and in the
            transforms of ``torch.func``, where values cannot be looked at, that root is NaN instead.

    Example:
        >>> import torch
        >>> mixture = torch.zeros(2), torch.tensor([-2.0, 2.0]), torch.zeros(2)
        >>> x = solve_mixture_logit(torch.tensor(3.0), *mixture)
        >>> mixture_logit(x, *mixture)[0]
        tensor(3.)
    """
    x = _search(y.detach(), logits.detach(), mean.detach(), log_scale.detach())
    for _ in range(2):
        value, log_slope = mixture_logit(x, logits, mean, log_scale)
        step = (value - y) * _reciprocal(log_slope)
        x = x - (step - step.detach())  # its derivatives alone, lest rounding leaves the bracket
    return x


@torch.no_grad()
def _search(y: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """The root's value, NaN where it was not found."""
    looking = values_can_be_read()
    alone = mean + log_scale.exp() * y
    low, high = alone.amin(0), alone.amax(0)
    x = torch.where(y > 0, high, low)
    before = torch.full_like(x, torch.inf)
    searching = torch.ones_like(x, dtype=torch.bool)
    rounding = 4 * torch.finfo(x.dtype).eps
    for _ in range(_STEPS if looking else _TRACED_STEPS):
        value, log_slope = mixture_logit(x, logits, mean, log_scale)
        residual = value - y
        low, high = torch.where(residual < 0, x, low), torch.where(residual > 0, x, high)
        newton = residual * _reciprocal(log_slope)
        largest = ((x - mean) * torch.exp(-log_scale)).abs().amax(0)
        # "not above" lets NaN pass: it is handed on below, not searched for
        far = (residual.abs() > rounding * (1 + y.abs() + largest)) & (newton.abs() > rounding * x.abs())
        bisect = far & (residual.abs() > before / 2)
        before = torch.where(bisect, torch.inf, residual.abs())
        closer = torch.minimum(torch.maximum(x - newton, low), high)
        x = torch.where(searching, torch.where(bisect, (low + high) / 2, closer), x)
        searching = searching & far
        if looking and not bool(searching.any()):
            break
    if looking and bool(searching.any()):
        raise RuntimeError(
            f"The root was not found for {searching.sum()} of {searching.numel()} points; |y| is up to "
            f"{y.abs().max():.3g}, log-scales down to {log_scale.min():.3g}. Use float64, or smaller scales."
        )
    return torch.where(searching | residual.isnan(), torch.nan, x)


def _reciprocal(log_slope: Tensor) -> Tensor:
    """1 over the slope, finite."""
    return torch.exp(-log_slope).clamp(max=torch.finfo(log_slope.dtype).max)


def _nearest_zero(t: Tensor) -> Tensor:
    """The entry nearest 0 along dimension 0, or 0 where signs differ; no gradient passes, or matters."""
    t = t.detach()
    return t.amin(0).clamp(min=0) + t.amax(0).clamp(max=0)


class MixtureCoupling(_Coupling):
    r"""A coupling by the logit of a logistic mixture's distribution function, then scale and shift.

    .. math::
        \text{inverse:}\quad & z = e^{a}\, g(x) + b,
        & \log|\det| &= \sum_i \bigl(a_i + \log g'(x_i)\bigr)
        \\
        \text{forward:}\quad & x = g^{-1}\bigl((z - b)\,e^{-a}\bigr),\quad
        & \log|\det| &= -\sum_i \bigl(a_i + \log g'(x_i)\bigr)

    .. math::
        g(x) = \operatorname{logit} \sum_{k=1}^{K} \pi_k\,\sigma\Bigl(\frac{x - \mu_k}{s_k}\Bigr)

    for the entries outside the mask; the others pass unchanged, and the conditioner makes
    :math:`a, b, \pi, \mu, s` from them. As in the paper the normalising direction is the closed form,
    which in this course is ``inverse``: the density costs one evaluation and a sample one bracketed
    root. For the other way round, wrap it in :class:`~flowlib.bijection.Inverse`.

    The networks' raw numbers are bounded smoothly,
    :math:`\operatorname{soft}_c(r) = c \tanh(r/c)`: :math:`a` and :math:`\log s_k` by ``bound``,
    :math:`\mu_k = \operatorname{soft}_{\mathrm{reach}}(\tfrac{k}{K} r_k)` by ``reach``. So
    :math:`g' \le e^{\mathrm{bound}}`, and between two narrow components far apart :math:`g'` is still about
    :math:`4 e^{B - R e^{B}}` with B = ``bound`` and R = ``reach``: 2e-4 for the defaults, which float32
    inverts. Zeros give :math:`g(x) = x`, so a new layer is the identity, to the last bit. The factors
    :math:`k/K` part components that all start equal: without them equal gradients would keep them equal.

    Shapes: points ``(B, *event)``, log-dets ``(B,)``.

    Args:
        mask: bool tensor with the shape of one point, True where an entry passes unchanged.
        conditioner: sees what it sees in an :class:`~flowlib.layers.coupling.AffineCoupling`; returns
            2 + 3K numbers for each of the m entries that move, ``(B, (2 + 3 * K) * m)``: a for every
            entry, then b, then the logits of π, the means and the log-scales.
        components: the number K of logistics.
        bound: the largest absolute value of a and of each log-scale.
        reach: the largest absolute mean; bring the data there.

    Raises:
        TypeError: if the mask is not a bool tensor.
        ValueError: if the mask is all True or all False, a shape does not match, or a size or bound
            is not positive.
        RuntimeError: from ``forward``, if a root was not found.

    Example:
        >>> import torch
        >>> from flowlib.layers.coupling import half_mask
        >>> from flowlib.nets import MLP
        >>> layer = MixtureCoupling(half_mask(2, 1), MLP(1, 26), components=8)
        >>> layer(torch.tensor([[1.0, 2.0]]))[0].tolist()  # a new layer is the identity
        [[1.0, 2.0]]

    Reference: Ho et al., *Flow++: Improving Flow-Based Generative Models with Variational
    Dequantization and Architecture Design*, ICML 2019, arXiv:1902.00275.
    """

    factors: Tensor

    def __init__(
        self,
        mask: Tensor,
        conditioner: Callable[..., Tensor],
        components: int = 8,
        bound: float = 1.0,
        reach: float = 4.0,
    ) -> None:
        super().__init__(mask, conditioner)
        if not isinstance(components, int) or components < 1:
            raise ValueError(f"components must be a whole number, 1 or more, and came as {components!r}.")
        for name, value in (("bound", bound), ("reach", reach)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a positive finite number and came as {value}.")
        self.components, self.bound, self.reach = components, float(bound), float(reach)
        self.outputs = 2 + 3 * components
        factors = torch.arange(1, components + 1, dtype=torch.get_default_dtype()) / components
        self.register_buffer("factors", factors, persistent=False)

    def generate(self, z: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift, mixture = self._curves(numbers)
        x = solve_mixture_logit((z - shift) * torch.exp(-log_scale), *mixture)
        return x, -(mixture_logit(x, *mixture)[1] + log_scale)

    def normalise(self, x: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift, mixture = self._curves(numbers)
        level, log_slope = mixture_logit(x, *mixture)
        return torch.addcmul(shift, level, log_scale.exp()), log_slope + log_scale

    def _curves(self, numbers: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The scale a, the shift b and the mixture of every moving entry."""
        each = numbers.unflatten(1, (self.outputs, -1)).movedim(1, 0)
        scale, shift, logits, mean, log_scale = each.split([1, 1, *[self.components] * 3])
        factors = self.factors.reshape(-1, *[1] * (mean.dim() - 1))
        mean, log_scale = _soft(factors * mean, self.reach), _soft(log_scale, self.bound)
        return _soft(scale[0], self.bound), shift[0], (torch.log_softmax(logits, 0), mean, log_scale)


def _soft(raw: Tensor, bound: float) -> Tensor:
    """The number itself near 0, and never beyond the bound."""
    return bound * torch.tanh(raw / bound)


__all__ = ["MixtureCoupling", "mixture_logit", "solve_mixture_logit"]
