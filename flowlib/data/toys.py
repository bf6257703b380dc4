r"""Four toy densities of the flow literature, with exact values where others only have samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowlib.data.density import Box, Density, gauss_legendre, normal, on_circle, polar_rule, uniform


class EightGaussians(Density):
    r"""Eight Gaussians on a circle.

    .. math::
        p(x) = \frac18 \sum_{k=0}^{7} \mathcal{N}(x;\, c_k, \sigma^2 I), \qquad
        c_k = R\,(\cos\tfrac{\pi k}{4}, \sin\tfrac{\pi k}{4}), \quad R = 2,\ \sigma = 0.25

    Neighbouring centres are 6.1 standard deviations apart: a flow has to tear the mass into
    islands and leaves thin bridges between them.

    Example:
        >>> import torch
        >>> EightGaussians().sample(3).shape
        torch.Size([3, 2])
    """

    radius, std = 2.0, 0.25
    box: Box = ((-3.5, 3.5), (-3.5, 3.5))
    edges = ((-4.25, 4.25), (-4.25, 4.25))
    nodes = 400
    log_normaliser = math.log(8 * 2 * math.pi * std**2)

    @property
    def centres(self) -> Tensor:
        """The eight means, shape ``(8, 2)``, in float64."""
        turn = torch.arange(8, dtype=torch.float64) * math.pi / 4
        return self.radius * on_circle(turn)

    def _log_unnormalised(self, x: Tensor) -> Tensor:
        squares = ((x[:, None] - self.centres.to(x)) ** 2).sum(2)
        return torch.logsumexp(-squares / (2 * self.std**2), 1)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        k = torch.randint(8, (n,), generator=generator)
        return self.centres[k] + self.std * normal(n, 2, generator=generator)


class Rings(Density):
    r"""Three concentric rings: a uniform angle on a circle of radius :math:`R_k`, plus Gaussian noise.

    .. math::
        p(x) = \frac13 \sum_{k=1}^{3} \frac{1}{2\pi\sigma^2}
        \exp\!\left(-\frac{r^2 + R_k^2}{2\sigma^2}\right) I_0\!\left(\frac{r R_k}{\sigma^2}\right),
        \qquad r = \lVert x \rVert,\ R_k = k,\ \sigma = 0.15

    The Bessel function :math:`I_0` is the integral of the noise over the angle. It overflows where
    the exponential underflows, so both are taken together:
    :math:`e^{-(r^2+R^2)/2\sigma^2} I_0(t) = e^{-(r-R)^2/2\sigma^2}\,[e^{-t} I_0(t)]` with
    :math:`t = rR/\sigma^2`.

    Example:
        >>> import torch
        >>> Rings().log_prob(torch.tensor([[1e3, 0.0]])).isfinite()
        tensor([True])
    """

    radii, std = (1.0, 2.0, 3.0), 0.15
    box: Box = ((-4.0, 4.0), (-4.0, 4.0))
    nodes = 600
    log_normaliser = math.log(3 * 2 * math.pi * std**2)

    def _log_unnormalised(self, x: Tensor) -> Tensor:
        r = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        radii = x.new_tensor(self.radii)
        bessel = torch.special.i0e(r * radii / self.std**2).log()
        return torch.logsumexp(-((r - radii) ** 2) / (2 * self.std**2) + bessel, 1)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        radius = torch.tensor(self.radii, dtype=torch.float64)[torch.randint(3, (n,), generator=generator)]
        turn = 2 * math.pi * uniform(n, generator=generator)
        circle = radius[:, None] * on_circle(turn)
        return circle + self.std * normal(n, 2, generator=generator)

    def _quadrature(self, n: int) -> tuple[Tensor, Tensor]:
        return polar_rule((0.0, 4.5), n, angles=1)  # the same at every angle


class TwoMoons(Density):
    r"""Two interleaved half-circles: a uniform angle on an arc, plus Gaussian noise.

    .. math::
        p(x) = \tfrac12\, a(x) + \tfrac12\, a\big((1, \tfrac12) - x\big), \qquad
        a(x) = \frac1\pi \int_0^\pi \mathcal{N}\big(x;\, (\cos t, \sin t), \sigma^2 I\big)\,dt,
        \quad \sigma = 0.1

    The second moon is the first one turned by 180°; the arcs are those of scikit-learn's
    ``make_moons``, whose angles lie on a grid where these are random. The integral over the angle is a
    Gauss–Legendre sum: inside the box the error of :math:`\log p` is below 1e-12.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.3, 0.8]])
        >>> torch.allclose(TwoMoons().log_prob(x), TwoMoons().log_prob(torch.tensor([[1, 0.5]]) - x))
        True
    """

    std = 0.1
    box: Box = ((-1.6, 2.6), (-1.1, 1.6))
    edges = ((-2.0, 0.5, 3.0), (-1.5, 2.0))
    nodes = 192
    arc_nodes = 96
    log_normaliser = math.log(2 * math.pi * std**2)

    def __init__(self) -> None:
        turn, weights = gauss_legendre((0.0, math.pi), self.arc_nodes)
        self._arc = on_circle(turn)
        self._log_weights = (weights / math.pi).log()

    def _log_unnormalised(self, x: Tensor) -> Tensor:
        turned = x.new_tensor([1.0, 0.5]) - x
        return torch.logaddexp(self._log_arc(x), self._log_arc(turned)) - math.log(2)

    def _log_arc(self, x: Tensor) -> Tensor:
        # |x - c(t)|² = |x|² + 1 - 2 x·c(t), as one matrix product
        squares = (x * x).sum(1, keepdim=True) + 1 - 2 * x @ self._arc.T.to(x)
        return torch.logsumexp(self._log_weights.to(x) - squares / (2 * self.std**2), 1)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        turn = math.pi * uniform(n, generator=generator)
        arc = on_circle(turn)
        second = torch.randint(2, (n, 1), generator=generator).bool()
        arc = torch.where(second, torch.tensor([1.0, 0.5], dtype=torch.float64) - arc, arc)
        return arc + self.std * normal(n, 2, generator=generator)


class Checkerboard(Density):
    r"""Uniform on the eight dark squares of a 4 × 4 board with sides of length 2.

    .. math:: p(x) = \tfrac1{32} \text{ on the dark squares, and } 0 \text{ elsewhere}; \qquad H = \log 32

    The squares are closed, so that a sample rounded onto an edge still has its density. Its
    jumps are what a smooth flow can only approach.

    Example:
        >>> import torch
        >>> Checkerboard().log_prob(torch.tensor([[1.0, 1.0], [1.0, -1.0]])).exp()
        tensor([0.0312, 0.0000])
    """

    box: Box = ((-5.0, 5.0), (-5.0, 5.0))
    edges = ((-4.0, -2.0, 0.0, 2.0, 4.0),) * 2
    log_normaliser = math.log(32)
    entropy = math.log(32)

    def _log_unnormalised(self, x: Tensor) -> Tensor:
        place = torch.remainder(x / 2, 2)  # [0, 1] in even columns and rows, [1, 2] in odd ones
        even, odd = place <= 1, (place >= 1) | (place == 0)
        dark = (even.all(1) | odd.all(1)) & (x.abs() <= 4).all(1)
        return torch.where(dark, x.new_tensor(0.0), x.new_tensor(-math.inf))

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        column = torch.randint(4, (n,), generator=generator)
        row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
        corner = 2.0 * torch.stack([column, row], 1) - 4
        return corner + 2 * uniform(n, 2, generator=generator)


__all__ = ["Checkerboard", "EightGaussians", "Rings", "TwoMoons"]
