r"""Flow++: a coupling that bends each entry along the distribution function of a mixture.

The curve is in :mod:`flowlib.logistic_mixture` and the network for images, which looks at all pixels at
once, in :mod:`flowlib.attention` (Ho, Chen, Srinivas, Duan and Abbeel, 2019). The paper's third part,
variational dequantisation, is :class:`flowlib.dequantize.VariationalDequantize`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flowlib.coupling import _Coupling
from flowlib.logistic_mixture import mixture_logit, solve_mixture_logit


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
        conditioner: called as ``conditioner(mask * z, context)``; returns 2 + 3K numbers for each
            entry along dimension 1, ``(B, (2 + 3 * K) * d)``: a for every entry, then b, then the
            logits of π, the means and the log-scales.
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
        >>> from flowlib.coupling import half_mask
        >>> from flowlib.nets import MLP
        >>> layer = MixtureCoupling(half_mask(2, 1), MLP(2, 2 * 26), components=8)
        >>> layer(torch.tensor([[1.0, 2.0]]))[0].tolist()  # a new layer is the identity
        [[1.0, 2.0]]

    Reference: Ho et al., *Flow++: Improving Flow-Based Generative Models with Variational
    Dequantization and Architecture Design*, ICML 2019, arXiv:1902.00275.
    """

    moving: Tensor
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
        self.register_buffer("moving", (~mask).flatten().nonzero().flatten())
        factors = torch.arange(1, components + 1, dtype=torch.get_default_dtype()) / components
        self.register_buffer("factors", factors[:, None, None], persistent=False)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift, mixture = self._curves(z, context)
        entries = z.flatten(1)
        level = (entries.index_select(1, self.moving) - shift) * torch.exp(-log_scale)
        x = solve_mixture_logit(level, *mixture)
        log_slope = mixture_logit(x, *mixture)[1]
        return entries.index_copy(1, self.moving, x).reshape(z.shape), -(log_slope + log_scale).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift, mixture = self._curves(x, context)
        entries = x.flatten(1)
        level, log_slope = mixture_logit(entries.index_select(1, self.moving), *mixture)
        z = torch.addcmul(shift, level, log_scale.exp())
        return entries.index_copy(1, self.moving, z).reshape(x.shape), (log_slope + log_scale).sum(1)

    def _curves(self, points: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The scale a, the shift b and the mixture of every moving entry; the others cost nothing."""
        if points.shape[1:] != self.mask.shape:
            raise ValueError(
                f"The points have shape {tuple(points.shape)} and the mask {tuple(self.mask.shape)}; "
                "the mask of a mixture coupling must have the shape of one point."
            )
        raw = self._parameters_at(points, context).unflatten(1, (self.outputs, points.shape[1]))
        raw = raw.flatten(2).movedim(1, 0).index_select(2, self.moving)
        scale, shift, logits, mean, log_scale = raw.split([1, 1, *[self.components] * 3])
        mixture = (
            torch.log_softmax(logits, 0),
            _soft(self.factors * mean, self.reach),
            _soft(log_scale, self.bound),
        )
        return _soft(scale[0], self.bound), shift[0], mixture


def _soft(raw: Tensor, bound: float) -> Tensor:
    """The number itself near 0, and never beyond the bound."""
    return bound * torch.tanh(raw / bound)


__all__ = ["MixtureCoupling"]
