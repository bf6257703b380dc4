r"""The four test energies of Rezende and Mohamed (2015, Table 1), made normalisable and exact.

.. math::
    w_1(z) = \sin\frac{2\pi z_1}{4}, \qquad
    w_2(z) = 3\exp\!\left[-\tfrac12\left(\tfrac{z_1 - 1}{0.6}\right)^2\right], \qquad
    w_3(z) = 3\,\sigma\!\left(\tfrac{z_1 - 1}{0.3}\right)

Reverse-KL training needs only :math:`\log\tilde p = -U`. To say how good its result is takes
:math:`\log Z`, the entropy and exact samples, and those are here too.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from flowlib.data.density import Box, Density, normal, on_circle, polar_rule, uniform


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
            turn = 2 * math.pi * uniform(3 * n, generator=generator)
            x = r[:, None] * on_circle(turn)
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

    def ridges(self, z1: Tensor) -> Tensor:
        """The centres :math:`m_k(z_1)`, shape ``(N, K)``."""
        raise NotImplementedError

    @property
    def log_normaliser(self) -> float:  # type: ignore[override]
        r""":math:`\log Z`, in closed form."""
        length = 2 * self.half_length + math.sqrt(2 * math.pi) * self.wall
        return math.log(length * math.sqrt(2 * math.pi) * sum(self.widths))

    def _log_unnormalised(self, x: Tensor) -> Tensor:
        z1, z2 = x[:, 0], x[:, 1:]
        distance = (z2 - self.ridges(z1)) / x.new_tensor(self.widths)
        beyond = (z1.abs() - self.half_length).clamp_min(0) / self.wall
        return torch.logsumexp(-0.5 * distance**2, 1) - 0.5 * beyond**2

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        tails = math.sqrt(2 * math.pi) * self.wall
        side = 2 * uniform(n, generator=generator) - 1
        tail = self.half_length + self.wall * normal(n, generator=generator).abs()
        in_tail = uniform(n, generator=generator) * (2 * self.half_length + tails) < tails
        z1 = torch.where(in_tail, side.sign() * tail, self.half_length * side)
        widths = torch.tensor(self.widths, dtype=torch.float64)
        # by inversion, not multinomial, which refuses n = 0
        edges = (widths / widths.sum()).cumsum(0)[:-1]
        k = torch.bucketize(uniform(n, generator=generator), edges)
        centre = self.ridges(z1).gather(1, k[:, None])[:, 0]
        z2 = centre + widths[k] * normal(n, generator=generator)
        return torch.stack([z1, z2], 1)


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
        tails = math.sqrt(2 * math.pi) * self.wall
        return self.log_normaliser + 0.5 * tails / (2 * self.half_length + tails) + 0.5


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


__all__ = ["U1", "U2", "U3", "U4"]
