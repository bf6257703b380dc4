r"""Eight densities of the plane with exact values, samples and entropies, where others only have samples.

Four toys of the flow literature, and the four test energies of Rezende and Mohamed (2015, Table 1), made
normalisable. With

.. math::
    w_1(z) = \sin\frac{2\pi z_1}{4}, \qquad
    w_2(z) = 3\exp\!\left[-\tfrac12\left(\tfrac{z_1 - 1}{0.6}\right)^2\right], \qquad
    w_3(z) = 3\,\sigma\!\left(\tfrac{z_1 - 1}{0.3}\right)

reverse-KL training of the energies needs only :math:`\log\tilde p = -U`. To say how good its result is
takes :math:`\log Z`, the entropy and exact samples, and those are here too.
"""

from __future__ import annotations

import math
from functools import cached_property

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
        return self.radius * on_circle(torch.arange(8, dtype=torch.float64) * math.pi / 4)

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
        radius = torch.tensor(self.radii, dtype=torch.float64)[torch.randint(3, (n, 1), generator=generator)]
        circle = radius * on_circle(2 * math.pi * uniform(n, generator=generator))
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
        arc = on_circle(math.pi * uniform(n, generator=generator))
        second = torch.randint(2, (n, 1), generator=generator).bool()
        arc = torch.where(second, arc.new_tensor([1.0, 0.5]) - arc, arc)
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


class U1(Density):
    r"""A ring cut into two crescents.

    .. math::
        U_1(z) = \tfrac12\left(\frac{\lVert z\rVert - 2}{0.4}\right)^2
        - \log\left(e^{-\frac12\left[\frac{z_1 - 2}{0.6}\right]^2}
        + e^{-\frac12\left[\frac{z_1 + 2}{0.6}\right]^2}\right)

    :math:`Z` has no simple closed form: it is a quadrature in polar coordinates, where the
    energy is smooth (in Cartesian ones it has a kink at the origin).

    Samples are exact, by rejection. The angle is uniform, and since :math:`r \le 2e^{(r-2)/2}`,

    .. math:: r\,e^{-\frac12\left(\frac{r-2}{0.4}\right)^2} \le c\;\mathcal{N}(r;\, 2.08, 0.4^2),

    a Gaussian radius is a proposal; the crescents' factor is at most :math:`1 + e^{-\frac12(2/0.6)^2}`.

    Example:
        >>> import torch
        >>> U1().log_unnormalised(torch.tensor([[2.0, 0.0]]))  # the bottom of a crescent
        tensor([2.2336e-10])
    """

    box: Box = ((-4.0, 4.0), (-4.0, 4.0))

    def _log_unnormalised(self, x: Tensor) -> Tensor:
        ring = -0.5 * ((torch.linalg.vector_norm(x, dim=1) - 2) / 0.4) ** 2
        return ring + _log_crescents(x[:, 0])

    @cached_property
    def log_normaliser(self) -> float:  # type: ignore[override]
        r""":math:`\log Z`, by quadrature."""
        points, weights = self._quadrature(self.nodes)
        return float(torch.logsumexp(self._log_unnormalised(points) + weights.log(), 0))

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        found = torch.empty(0, 2, dtype=torch.float64)
        largest = math.log1p(math.exp(-0.5 * (2 / 0.6) ** 2))
        while len(found) < n:
            r = 2.08 + 0.4 * normal(3 * n, generator=generator)
            x = r[:, None] * on_circle(2 * math.pi * uniform(3 * n, generator=generator))
            # log of target over envelope, at most 0; a negative radius is refused
            log_accept = (r / 2).clamp_min(0).log() - (r - 2) / 2 + _log_crescents(x[:, 0]) - largest
            accept = uniform(3 * n, generator=generator).log() < log_accept
            found = torch.cat([found, x[accept]])
        return found[:n]

    def _quadrature(self, n: int) -> tuple[Tensor, Tensor]:
        return polar_rule((0.0, 6.0), n, angles=n)


class _Ridges(Density):
    r"""A mixture, for every :math:`z_1`, of Gaussian ridges in :math:`z_2`, between two soft walls.

    .. math::
        \tilde p(z) = e^{-W(z_1)} \sum_k
        \exp\!\left[-\tfrac12\left(\frac{z_2 - m_k(z_1)}{s_k}\right)^2\right], \qquad
        W(z_1) = \tfrac12\left(\frac{(|z_1| - 4)_+}{0.4}\right)^2

    In the paper there is no :math:`W`: the energies are periodic or constant along :math:`z_1` in the
    long run, so :math:`e^{-U}` has infinite mass and no density. The walls start where the paper's
    figures end, at :math:`|z_1| = 4`, and leave everything inside as it was.

    The integral over :math:`z_2` is :math:`\sqrt{2\pi}\sum_k s_k` for every :math:`z_1`. Hence

    .. math:: Z = \left(8 + 0.4\sqrt{2\pi}\right)\sqrt{2\pi}\,\sum_k s_k,

    and exact samples: :math:`z_1` is uniform on [−4, 4] or in a half-Gaussian tail, ridge :math:`k`
    is chosen with probability :math:`s_k / \sum_j s_j`, and :math:`z_2` is Gaussian about it.
    """

    widths: tuple[float, ...]
    half_length, wall = 4.0, 0.4
    tails = math.sqrt(2 * math.pi) * wall

    def ridges(self, z1: Tensor) -> Tensor:
        """The centres :math:`m_k(z_1)`, shape ``(N, K)``."""
        raise NotImplementedError

    @property
    def log_normaliser(self) -> float:  # type: ignore[override]
        r""":math:`\log Z`, in closed form."""
        return math.log((2 * self.half_length + self.tails) * math.sqrt(2 * math.pi) * sum(self.widths))

    def _log_unnormalised(self, x: Tensor) -> Tensor:
        z1, z2 = x[:, 0], x[:, 1:]
        distance = (z2 - self.ridges(z1)) / x.new_tensor(self.widths)
        beyond = (z1.abs() - self.half_length).clamp_min(0) / self.wall
        return torch.logsumexp(-0.5 * distance**2, 1) - 0.5 * beyond**2

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        side = 2 * uniform(n, generator=generator) - 1
        tail = self.half_length + self.wall * normal(n, generator=generator).abs()
        in_tail = uniform(n, generator=generator) * (2 * self.half_length + self.tails) < self.tails
        z1 = torch.where(in_tail, side.sign() * tail, self.half_length * side)
        widths = torch.tensor(self.widths, dtype=torch.float64)
        # by inversion, not multinomial, which refuses n = 0
        edges = (widths / widths.sum()).cumsum(0)[:-1]
        k = torch.bucketize(uniform(n, 1, generator=generator), edges)
        z2 = self.ridges(z1).gather(1, k) + widths[k] * normal(n, 1, generator=generator)
        return torch.cat([z1[:, None], z2], 1)


class U2(_Ridges):
    r"""One sine wave.

    .. math:: U_2(z) = \tfrac12\left[\frac{z_2 - w_1(z)}{0.4}\right]^2 + W(z_1)

    :math:`W(z_1) = \frac12((|z_1| - 4)_+/0.4)^2` are soft walls, without which :math:`e^{-U_2}` has infinite
    mass; inside them the energy is the paper's. Normaliser and entropy have closed forms: :math:`z_1` and
    :math:`z_2 - w_1(z)` are independent, so the entropies add.

    Example:
        >>> import math, torch
        >>> U2().log_unnormalised(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))  # on the wave, and 2 above it
        tensor([ 0.0000, -12.5000])
    """

    widths = (0.4,)
    box: Box = ((-6.0, 6.0), (-3.5, 3.5))
    edges = ((-8.0, -4.0, 4.0, 8.0), (-5.0, 5.0))

    def ridges(self, z1: Tensor) -> Tensor:
        return _wave(z1)[:, None]

    @cached_property
    def entropy(self) -> float:
        r"""The entropy in nats, :math:`\log Z + \tfrac12 \cdot \text{P(in a tail)} + \tfrac12`."""
        return self.log_normaliser + 0.5 * self.tails / (2 * self.half_length + self.tails) + 0.5


class U3(_Ridges):
    r"""A sine wave that forks into two for a while.

    .. math::
        U_3(z) = -\log\left(e^{-\frac12\left[\frac{z_2 - w_1(z)}{0.35}\right]^2}
        + e^{-\frac12\left[\frac{z_2 - w_1(z) + w_2(z)}{0.35}\right]^2}\right) + W(z_1)

    :math:`W(z_1) = \frac12((|z_1| - 4)_+/0.4)^2` are soft walls, without which :math:`e^{-U_3}` has infinite
    mass; inside them the energy is the paper's. The normaliser has a closed form, samples are exact.
    """

    widths = (0.35, 0.35)
    box: Box = ((-6.0, 6.0), (-4.5, 3.5))
    edges = ((-8.0, -4.0, 4.0, 8.0), (-5.5, 4.5))

    def ridges(self, z1: Tensor) -> Tensor:
        fork = 3 * torch.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
        return torch.stack([_wave(z1), _wave(z1) - fork], 1)


class U4(_Ridges):
    r"""A sine wave that splits into two for good.

    .. math::
        U_4(z) = -\log\left(e^{-\frac12\left[\frac{z_2 - w_1(z)}{0.4}\right]^2}
        + e^{-\frac12\left[\frac{z_2 - w_1(z) + w_3(z)}{0.35}\right]^2}\right) + W(z_1)

    :math:`W(z_1) = \frac12((|z_1| - 4)_+/0.4)^2` are soft walls, without which :math:`e^{-U_4}` has infinite
    mass; inside them the energy is the paper's. The two widths weigh the branches 0.4 : 0.35. The
    normaliser has a closed form, samples are exact.
    """

    widths = (0.4, 0.35)
    box: Box = ((-6.0, 6.0), (-6.5, 3.5))
    edges = ((-8.0, -4.0, 4.0, 8.0), (-7.5, 5.0))

    def ridges(self, z1: Tensor) -> Tensor:
        split = 3 * torch.sigmoid((z1 - 1) / 0.3)
        return torch.stack([_wave(z1), _wave(z1) - split], 1)


def _wave(z1: Tensor) -> Tensor:
    return torch.sin(math.pi / 2 * z1)


def _log_crescents(z1: Tensor) -> Tensor:
    return torch.logaddexp(-0.5 * ((z1 - 2) / 0.6) ** 2, -0.5 * ((z1 + 2) / 0.6) ** 2)
