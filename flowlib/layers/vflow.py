r"""VFlow: give the flow more dimensions than the data, and pay with a bound.

A bijection keeps the dimension of its points, so its latents are as narrow as the data. VFlow adds
entries :math:`e`, drawn by a conditional flow :math:`q(e \mid x)`, and models :math:`(x, e)` together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from flowlib.bases import StandardNormal
from flowlib.bijection import Bijection, Compose, draws
from flowlib.flow import Flow
from flowlib.layers.coupling import AffineCoupling, conditioner_sizes
from flowlib.nets import MLP, ConvNet


class Augment(Bijection):
    r"""Extra entries, drawn in the normalising direction and dropped in the generating one.

    .. math::
        \text{forward:}\quad & (x, e) \mapsto x, & \log|\det| &= \log q(e \mid x) \\
        \text{inverse:}\quad & x \mapsto (x, e), \quad e \sim q(e \mid x), & \log|\det| &= -\log q(e \mid x)

    A layer of :class:`VFlow`. What stands for its log-determinant makes ``log_prob`` of
    the flow :math:`\log p(x, e) - \log q(e \mid x)`: at one draw, an unbiased estimate of a lower bound of
    :math:`\log p(x)`. So ``is_exact`` is False. The draws come from torch's global generator on the CPU;
    in train mode on a GPU, which would have to wait, from the GPU's own.

    The density q is a flow given x, :math:`e = h_x(\varepsilon)` with
    :math:`\varepsilon \sim \mathcal N(0, I)`: the first coupling makes it a Gaussian whose mean and scales
    see x, and each further one moves a half of e by the other half and x. A new layer has
    :math:`q = \mathcal N(0, I)`, whatever x is.

    Shapes: ``forward`` maps ``(B, C + extra, *pixels)`` to ``(B, C, *pixels)``, ``inverse`` back, for vectors
    ``(B, d + extra)`` and ``(B, d)``; log-dets ``(B,)``.

    Args:
        event_shape: the shape of one point x, ``(d,)`` or ``(C, H, W)``.
        extra: how many entries e has; for images, how many channels.
        layers: the number of couplings; 0 for :math:`\mathcal N(0, I)` for good.
        hidden: widths inside each conditioner; for vectors, empty makes them linear.
        context_features: length of the context that they see beside :math:`x`; 0 for none.

    Raises:
        ValueError: if a size is no positive whole number, or ``layers`` is above 1 where ``extra`` is 1.

    Example:
        >>> import torch
        >>> layer = Augment(2, extra=3)
        >>> both, log_det = layer.inverse(torch.zeros(5, 2))
        >>> both.shape, torch.equal(layer(both)[1], -log_det)
        (torch.Size([5, 5]), True)

    Reference: Chen et al., *VFlow: More Expressive Generative Flows with Variational Data Augmentation*,
    ICML 2020, arXiv:2002.09741.
    """

    is_exact = False

    def __init__(
        self,
        event_shape: int | Sequence[int],
        extra: int,
        layers: int = 1,
        hidden: Sequence[int] = (64,),
        context_features: int = 0,
    ) -> None:
        super().__init__()
        shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        if layers < 0 or (layers > 1 and extra == 1):
            raise ValueError(f"layers={layers} does not fit extra={extra}; more than 1 need extra=2 or more.")
        self.event_shape = torch.Size(shape)
        self.context_features = context_features
        self.noise = StandardNormal((extra, *shape[1:]))
        network, couplings = (MLP if len(shape) == 1 else ConvNet), []
        for mask in (_passes(shape, extra, k) for k in range(layers)):
            net = network(*conditioner_sizes(mask, 2), hidden, context_features)
            couplings.append(AffineCoupling(mask, net))
        self.h = Compose(couplings)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        noise, log_det = self.h.inverse(z, context)
        x, epsilon = noise.tensor_split(self.event_shape[:1], 1)
        return x, self.noise.log_prob(epsilon) + log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        epsilon = draws(self, torch.randn, (x.shape[0], *self.noise.event_shape), x)
        z, log_det = self.h(torch.cat([x, epsilon], 1), context)
        return z, log_det - self.noise.log_prob(epsilon)


def _passes(shape: tuple[int, ...], extra: int, k: int) -> Tensor:
    """The mask of coupling k: x always stays; e moves whole in the first, then half by half."""
    entries = torch.arange(-shape[0], extra).reshape(-1, *[1] * (len(shape) - 1))
    return (entries < 0) | ((entries % 2 == k % 2) & (k > 0))


class VFlow(Flow):
    r"""A flow of :math:`(x, e)` as a model of :math:`x`, with a lower bound of the likelihood.

    .. math::
        \log p(x) = \log \int p(x, e) \, de
        \ge \mathbb E_{q(e \mid x)} \bigl[ \log p(x, e) - \log q(e \mid x) \bigr]

    The gap is :math:`\mathrm{KL}\bigl(q(e \mid x) \,\Vert\, p(e \mid x)\bigr)`.
    :meth:`~flowlib.flow.Flow.log_prob` is the bracket at one draw: its mean is the bound, so ``is_exact``
    is False, and to train with it is to train the bound. More draws tighten it: see
    :meth:`importance_log_prob`.

    Samples are exact: :math:`(x, e)` from the flow, less e. With them, ``sample_and_log_prob`` returns the
    same bracket for an e from :math:`p(e \mid x)` instead of q. Its mean lies *above* :math:`\log p(x)`, so
    the two means enclose it. Latents, which ``decode`` and ``trajectory`` take and ``encode`` draws, have
    the larger shape of the base.

    Args:
        joint: a flow of :math:`(x, e)`, with the entries or channels of e after those of x.
        augment: the layer that draws e.
        outer: layers of x alone that keep its shape, such as ``[Logit(0.05), Dequantize(256)]``.

    Raises:
        ValueError: if the two do not have the same number of entries, or their contexts differ.

    Example:
        >>> import torch
        >>> from flowlib.models import realnvp
        >>> flow = VFlow(realnvp((4,)), Augment(2, extra=2))
        >>> flow.event_shape, flow.sample(3).shape, flow.log_prob(torch.zeros(5, 2)).shape
        (torch.Size([2]), torch.Size([3, 2]), torch.Size([5]))

    Reference: Chen et al., *VFlow*, ICML 2020, arXiv:2002.09741.
    """

    def __init__(self, joint: Flow, augment: Augment, outer: Iterable[Bijection] = ()) -> None:
        x, e = augment.event_shape, augment.noise.event_shape
        both = (x[0] + e[0], *x[1:])
        if tuple(joint.event_shape) != both:
            raise ValueError(
                f"joint has event_shape {tuple(joint.event_shape)}; with points {tuple(x)} and extra={e[0]} "
                f"it must be {both}."
            )
        if augment.context_features not in (0, joint.context_features):
            raise ValueError(
                f"augment takes context_features={augment.context_features} and joint "
                f"{joint.context_features}; give both the same, or augment none."
            )
        super().__init__([joint.bijection, augment, *outer], joint.base, joint.context_features)
        self._event_shape = augment.event_shape

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one point x, without the extra entries."""
        return self._event_shape

    def importance_log_prob(self, x: Tensor, draws: int, context: Tensor | None = None) -> Tensor:
        r"""A tighter estimate of :math:`\log p(x)` from K draws of e for each point, shape ``(B,)``.

        .. math::
            \log \frac1K \sum_{k=1}^{K} \frac{p(x, e_k)}{q(e_k \mid x)}, \qquad e_k \sim q(e \mid x)

        Its mean never exceeds :math:`\log p(x)`, never falls as K grows, and tends to :math:`\log p(x)`;
        K = 1 is :meth:`~flowlib.flow.Flow.log_prob`.

        Reference: Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, ICLR 2016,
        arXiv:1509.00519.
        """
        if not isinstance(draws, int) or draws < 1:
            raise ValueError(f"draws must be a whole number, 1 or more, and came as {draws!r}.")
        self._check_points(x, "x")
        context = self._check_context(context, x.shape[0])
        rows = None if context is None else context.repeat_interleave(draws, 0)
        log_weights = self.log_prob(x.repeat_interleave(draws, 0), rows).reshape(x.shape[0], draws)
        return log_weights.logsumexp(1) - math.log(draws)


__all__ = ["Augment", "VFlow"]
