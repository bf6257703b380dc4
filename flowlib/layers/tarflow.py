r"""TarFlow: MAF over the patches of an image, with a causal transformer for a masked network.

Normalising takes one pass over all patches. Generating goes patch by patch, with a cache that spares the
network every patch it has already seen, or by Jacobi's iteration over all patches at once
(Zhai et al., 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowlib.bijection import Bijection
from flowlib.flow import Flow
from flowlib.nets import Conditioner, _check_blocks, _check_widths, _zero

Past = tuple[Tensor, Tensor]  # keys and values of the tokens so far, (B, heads, tokens, width / heads)


class CausalTransformer(Conditioner):
    r"""A network of a sequence whose output :math:`h_i` is a function of the tokens up to i.

    .. math::
        h^0_i = W x_i + p_i + V\,\mathrm{context}, \qquad
        h \leftarrow h + \operatorname{attend}(\operatorname{norm}(h)), \quad
        h \leftarrow h + \operatorname{MLP}(\operatorname{norm}(h))

    .. math::
        \operatorname{attend}_i
        = U \sum_{j \le i} \operatorname{softmax}_{j \le i}\Bigl(\frac{q_i \cdot k_j}{\sqrt{w}}\Bigr)\, v_j

    with queries, keys and values linear in the hidden vectors, w wide in each head, and a learned vector
    :math:`p_i` for each place. The last layer starts at zero. :math:`h_i` needs no keys and values but those
    up to i, so a sequence may come in pieces: :meth:`extend` takes what was kept of those before.

    Shapes: tokens ``(B, T, in_features)``, ``context`` ``(B, context_features)``, the output
    ``(B, T, out_features)``, for any T up to ``tokens``.

    Args:
        tokens: the longest sequence.
        in_features, out_features: numbers of a token, and of the output for it.
        hidden: widths inside, one entry for each pair of attention and MLP, all equal.
        heads: how many attentions side by side; divides the width.
        context_features: length of the context, which every token hears; 0 for none.

    Raises:
        ValueError: if a size is not a positive whole number, the widths differ, or ``heads`` does not
            divide them.

    Example:
        >>> import torch
        >>> net = CausalTransformer(15, 4, 8, hidden=(16, 16))
        >>> net(torch.ones(5, 15, 4)).shape
        torch.Size([5, 15, 8])

    Reference: Vaswani et al., *Attention Is All You Need*, NeurIPS 2017, arXiv:1706.03762.
    """

    layers: Any  # a list of _CausalLayer

    def __init__(
        self,
        tokens: int,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (64, 64),
        heads: int = 4,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        _check_widths(tokens=tokens, hidden=hidden, heads=heads)
        _check_blocks(hidden, heads)
        width = hidden[0]
        self.context_features = context_features
        self.first = nn.Linear(in_features, width)
        self.positions = nn.Parameter(0.01 * torch.randn(tokens, width))
        self.context = nn.Linear(context_features, width, bias=False) if context_features else None
        self.layers = nn.ModuleList(_CausalLayer(width, heads) for _ in hidden)
        self.last = nn.Sequential(nn.LayerNorm(width), _zero(nn.Linear(width, out_features)))

    def compute(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self.extend(tokens, context, [])[0]

    def extend(
        self, tokens: Tensor, context: Tensor | None, past: Sequence[Past]
    ) -> tuple[Tensor, list[Past]]:
        """The outputs for further tokens, and the keys and values of all tokens so far, layer by layer.

        Args:
            tokens: those that come next, of shape ``(B, n, in_features)``.
            context: one row for each sequence.
            past: what the last call returned; empty at the start.
        """
        start = past[0][0].shape[2] if past else 0
        hidden = self.first(tokens) + self.positions[start : start + tokens.shape[1]]
        if self.context is not None:
            hidden = hidden + self.context(context)[:, None]
        now: list[Past] = []
        for k, layer in enumerate(self.layers):
            hidden, kept = layer.extend(hidden, past[k] if past else None)
            now.append(kept)
        return self.last(hidden), now


class _CausalLayer(nn.Module):
    """Attention to the tokens so far and an MLP for each token, (B, n, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 3 * width, bias=False)
        self.outer = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def extend(self, hidden: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        split = self.inner(self.norm(hidden)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        n, m = query.shape[2], key.shape[2]  # the queries are those of the last n tokens of m
        ahead = torch.ones(n, m, dtype=torch.bool, device=hidden.device).triu(m - n + 1)
        scores = (query @ key.mT * query.shape[3] ** -0.5).masked_fill(ahead, -torch.inf)
        hidden = hidden + self.outer((scores.softmax(3) @ value).transpose(1, 2).flatten(2))
        return hidden + self.mlp(hidden), (key, value)


class TarFlowBlock(Bijection):
    r"""One block of TarFlow: every patch is shifted and scaled by functions of the patches before it.

    .. math::
        \text{forward:}\quad & x_1 = z_1, \quad x_i = z_i \odot e^{\alpha_i(x_{<i})} + \mu_i(x_{<i}), \quad
        \log|\det| = \sum_{i=2}^{T} \sum_k \alpha_{ik}(x_{<i}) \\
        \text{inverse:}\quad & z_1 = x_1, \quad
        z_i = \bigl(x_i - \mu_i(x_{<i})\bigr) \odot e^{-\alpha_i(x_{<i})}, \quad
        \log|\det| = -\sum_{i=2}^{T} \sum_k \alpha_{ik}(x_{<i})

    :math:`x_1, \dots, x_T` are the image's patches, row by row, or from the last to the first if ``flip``,
    and k runs over the numbers of a patch. :math:`\mu_{i+1}, \alpha_{i+1}` are the output of a
    :class:`CausalTransformer` at token i: shifted by one. The log-scale is bounded as in
    :class:`~flowlib.layers.coupling.AffineCoupling`, :math:`\alpha = \mathrm{bound} \cdot
    \tanh(\mathrm{raw} / \mathrm{bound})`. A new block is the identity. As the first patch never
    changes, a second block with the other ``flip`` has to follow.

    **Guidance.** With ``guidance`` w the block uses, in both directions,

    .. math::
        \tilde\mu = \mu(c) + w\,\bigl(\mu(c) - \mu(0)\bigr), \qquad
        \tilde\alpha = \alpha(c) + w\,\bigl(\alpha(c) - \alpha(0)\bigr)

    where c is the context and 0 a context of zeros, which some of the training must have seen. That
    is another block of the same kind, so its log-determinant is exact as well.

    Shapes: points ``(B, C, H, W)``, ``context`` ``(B, context_features)``, log-dets ``(B,)``.

    Args:
        event_shape: ``(C, H, W)`` of the images.
        patch: the side of a patch; divides H and W.
        hidden: widths inside the transformer, one entry for each pair of attention and MLP, all equal.
        heads: how many attentions side by side; divides the width.
        context_features: length of the context; 0 for none.
        flip: whether the patches come in the reversed order.

    Attributes:
        guidance: the weight w, 0 at first.
        bound: the largest absolute log-scale, 2.

    Raises:
        ValueError: if ``patch`` does not cut the image into two or more squares, or a size is not one that
            :class:`CausalTransformer` takes.

    Example:
        >>> import torch
        >>> block = TarFlowBlock((1, 4, 4), hidden=(8,))
        >>> x, log_det = block(torch.ones(5, 1, 4, 4))
        >>> x.shape, log_det.tolist()  # a new block is the identity
        (torch.Size([5, 1, 4, 4]), [0.0, 0.0, 0.0, 0.0, 0.0])

    Reference: Zhai et al., *Normalizing Flows are Capable Generative Models*, ICML 2025, arXiv:2412.06329.
    """

    guidance: float = 0.0
    bound: float = 2.0

    def __init__(
        self,
        event_shape: Sequence[int],
        patch: int = 2,
        hidden: Sequence[int] = (64, 64),
        heads: int = 4,
        context_features: int = 0,
        flip: bool = False,
    ) -> None:
        super().__init__()
        _check_widths(event_shape=event_shape, patch=patch)
        channels, height, width = event_shape
        tokens, numbers = (height // patch) * (width // patch), channels * patch**2
        if height % patch or width % patch or tokens < 2:
            raise ValueError(
                f"patch must cut {tuple(event_shape)} into two or more squares, and came as {patch}."
            )
        self.patch, self.rows, self.flip = patch, height // patch, flip
        self.net = CausalTransformer(tokens - 1, numbers, 2 * numbers, hidden, heads, context_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, *rest = self.patches(z).split(1, 1)
        x, log_det, past = [first], z.new_zeros(z.shape[0]), []  # type: ignore[var-annotated]
        for z_i in rest:
            raw, past = self.net.extend(*self._twice(x[-1], context), past)
            alpha, mu = self._alpha_and_mu(raw)
            x.append(z_i * alpha.exp() + mu)
            log_det = log_det + alpha.sum((1, 2))
        return self.image(torch.cat(x, 1)), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.patches(x)
        alpha, mu = self._alpha_and_mu(self.net(*self._twice(x[:, :-1], context)))
        z = torch.cat([x[:, :1], (x[:, 1:] - mu) * torch.exp(-alpha)], 1)
        return self.image(z), -alpha.sum((1, 2))

    def jacobi(
        self, z: Tensor, context: Tensor | None = None, tolerance: float = 0.0
    ) -> tuple[Tensor, Tensor, int]:
        r"""Generate all patches at once, again and again, by Jacobi's iteration.

        .. math::
            x^{(0)} = z, \qquad x^{(l)} = z \odot e^{\alpha(x^{(l-1)})} + \mu(x^{(l-1)})

        After l passes the first l + 1 patches are exact, whatever the network is, since patch i needs
        only those before it: T − 1 passes are always enough.

        Args:
            tolerance: end when no entry of the batch changes by more; 0 for the exact points, up to rounding.

        Returns:
            ``x`` and the log-det as from ``forward``, and the number of passes.

        Reference: Song et al., *Accelerating Feedforward Computation via Parallel Nonlinear Equation
        Solving*, ICML 2021, arXiv:2002.03629.
        """
        z = self.patches(z)
        x, passes, moved = z, 0, True
        while moved and passes < z.shape[1] - 1:
            alpha, mu = self._alpha_and_mu(self.net(*self._twice(x[:, :-1], context)))
            before, x = x, torch.cat([z[:, :1], z[:, 1:] * alpha.exp() + mu], 1)
            passes, moved = passes + 1, bool(((x - before).abs() > tolerance).any())
        return self.image(x), alpha.sum((1, 2)), passes

    def patches(self, image: Tensor) -> Tensor:
        """The patches in this block's order, from ``(B, C, H, W)`` to ``(B, T, C · patch²)``."""
        cut = image.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        tokens = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return tokens.flip(1) if self.flip else tokens

    def image(self, tokens: Tensor) -> Tensor:
        """The image from its patches, the inverse of :meth:`patches`."""
        tokens = tokens.flip(1) if self.flip else tokens
        cut = tokens.unflatten(2, (-1, self.patch, self.patch)).unflatten(1, (self.rows, -1))
        return cut.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

    def _twice(self, tokens: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The network's arguments: with guidance each sequence once with and once without its context."""
        if context is None or not self.guidance:
            return tokens, context
        return torch.cat([tokens, tokens]), torch.cat([context, torch.zeros_like(context)])

    def _alpha_and_mu(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The log-scale and the shift for every token of the network's output."""
        raw_alpha, mu = raw.chunk(2, 2)
        alpha = self.bound * torch.tanh(raw_alpha / self.bound)
        if not self.guidance or not self.net.context_features:
            return alpha, mu
        (alpha, alpha_0), (mu, mu_0) = alpha.chunk(2), mu.chunk(2)
        return alpha + self.guidance * (alpha - alpha_0), mu + self.guidance * (mu - mu_0)


def denoise(flow: Flow, y: Tensor, sigma: float, context: Tensor | None = None) -> Tensor:
    r"""Remove Gaussian noise by Tweedie's formula, for a flow of noisy points.

    .. math::
        E[x \mid y] = y + \sigma^2\,\nabla_y \log p(y), \qquad y = x + \sigma\varepsilon, \quad
        \varepsilon \sim \mathcal N(0, I)

    It holds for every density of x, with the density p of y.

    Shapes: ``y`` and the result ``(B, *event)``, ``context`` ``(B, context_features)``.

    Args:
        flow: a model of y, trained on points with the noise.
        y: the noisy points.
        sigma: the noise's deviation.
        context: one row for each point, if the flow takes one.

    Example:
        >>> import torch
        >>> from flowlib import Flow, Scale, StandardNormal
        >>> flow = Flow(Scale((1,)), StandardNormal(1))  # N(0, 1), so x is N(0, 1 - 0.6²)
        >>> denoise(flow, torch.tensor([[2.0]]), 0.6)
        tensor([[1.2800]])

    Reference: Efron, *Tweedie's Formula and Selection Bias*, JASA 2011; Zhai et al., arXiv:2412.06329.
    """
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        (score,) = torch.autograd.grad(flow.log_prob(y, context).sum(), y)
    return y.detach() + sigma**2 * score


__all__ = ["CausalTransformer", "TarFlowBlock", "denoise"]
