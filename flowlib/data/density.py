r"""What every two-dimensional density of the course offers: exact values, exact samples, exact entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from flowlib.bijection import check_finite

Box = tuple[tuple[float, float], tuple[float, float]]


class Density:
    r"""A density in the plane whose normaliser and entropy are known, so that a fit can be judged.

    .. math::
        p(x) = \frac{\tilde p(x)}{Z}, \qquad Z = \int \tilde p(x)\,dx, \qquad
        H = -\int p(x) \log p(x)\,dx

    No model has a smaller expected negative log-likelihood than :math:`H`, and the excess of a
    flow :math:`q` over it is :math:`\mathrm{KL}(p \,\|\, q)`.

    A subclass writes :math:`\log\tilde p`, an exact sampler and :math:`\log Z`. The entropy is
    computed once, at first use, by Gauss–Legendre quadrature in float64, where no closed form is
    known: ``edges`` are the panels of each axis, chosen so that next to no mass is outside them and
    that :math:`\tilde p` is smooth inside each.

    Attributes:
        box: ``((low, high), (low, high))``, a frame for plots that holds all but 1e-6 of the mass.
        log_normaliser: :math:`\log Z`.

    Example:
        >>> import torch
        >>> from flowlib.data import EightGaussians
        >>> density = EightGaussians()
        >>> x = density.sample(1000, torch.Generator().manual_seed(0))
        >>> density.log_prob(x).shape
        torch.Size([1000])
        >>> round(density.entropy, 4)
        2.1384
    """

    box: Box
    edges: Sequence[Sequence[float]]
    nodes: int = 256
    log_normaliser: float

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Return :math:`\log p(x) = \log\tilde p(x) - \log Z` in nats.

        Args:
            x: points of shape ``(N, 2)``, of any floating type and on any device.

        Raises:
            TypeError: if ``x`` is not a tensor of floating-point numbers.
            ValueError: if ``x`` has another shape, or holds NaN or infinity.
        """
        return self.log_unnormalised(x) - self.log_normaliser

    def log_unnormalised(self, x: Tensor) -> Tensor:
        r"""Return :math:`\log\tilde p(x)`, shape ``(N,)``; arguments as for :meth:`log_prob`."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = getattr(x, "dtype", type(x).__name__)
            raise TypeError(f"x must be a tensor of floating-point numbers and came as {came}.")
        if x.dim() != 2 or x.shape[1] != 2:
            raise ValueError(f"x must have shape (N, 2), one point per row, and came as {tuple(x.shape)}.")
        check_finite(x, "x")
        # half precision has neither the range nor the functions that the formulas need
        return self._log_unnormalised(x if x.dtype == torch.float64 else x.float()).to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` exact samples, shape ``(n, 2)``, in the default dtype on the CPU.

        Args:
            n: how many points, 0 or more.
            generator: a CPU generator; the default one if not given. Draws are made in float64,
                so one seed gives the same points in every precision.
        """
        return self._sample(n, generator).to(torch.get_default_dtype())

    @cached_property
    def entropy(self) -> float:
        r"""The entropy :math:`H` in nats."""
        return self.quadrature_entropy(self.nodes)

    def quadrature_entropy(self, n: int) -> float:
        """The entropy by quadrature, ``n`` nodes a panel: doubling ``n`` shows the error."""
        points, weights = self._quadrature(n)
        p = torch.cat([self.log_prob(chunk) for chunk in points.split(1 << 14)]).exp()
        return float(weights @ torch.special.entr(p))

    def _log_unnormalised(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no log-density.")

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Draw ``(n, 2)`` in float64."""
        raise NotImplementedError(f"{type(self).__name__} has no sampler.")

    def _quadrature(self, n: int) -> tuple[Tensor, Tensor]:
        """Points ``(M, 2)`` and weights ``(M,)`` of a rule for integrals over the plane."""
        (x, wx), (y, wy) = (gauss_legendre(edges, n) for edges in self.edges)
        return torch.cartesian_prod(x, y), torch.outer(wx, wy).flatten()


def gauss_legendre(edges: Sequence[float], n: int) -> tuple[Tensor, Tensor]:
    r"""Nodes and weights of :math:`\int g(t)\,dt \approx \sum_i w_i\, g(t_i)`, ``n`` nodes in each panel.

    Exact for polynomials of degree 2n − 1 in each panel, and exponentially accurate for a smooth integrand.

    Args:
        edges: the ends of the panels in rising order; a kink of the integrand belongs on one.
        n: nodes in each panel.

    Example:
        >>> t, w = gauss_legendre([0, 1, 3], 5)
        >>> round(float(w @ t**9), 6)  # (3^10 - 0) / 10
        5904.9
    """
    t, w = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(n))
    panels = list(pairwise(edges))
    nodes = torch.cat([low + (high - low) * (t + 1) / 2 for low, high in panels])
    return nodes, torch.cat([(high - low) / 2 * w for low, high in panels])


def polar_rule(radii: Sequence[float], n: int, angles: int) -> tuple[Tensor, Tensor]:
    r"""Points and weights of :math:`\int g(x)\,dx = \iint g(r\cos\varphi, r\sin\varphi)\,r\,dr\,d\varphi`.

    Gauss–Legendre in the radius; equally spaced angles, which are exponentially accurate for a
    smooth periodic integrand.
    """
    r, weights = gauss_legendre(radii, n)
    turn = 2 * math.pi * (torch.arange(angles, dtype=torch.float64) + 0.5) / angles
    points = (r[:, None, None] * on_circle(turn)).reshape(-1, 2)
    return points, (weights * r * 2 * math.pi / angles).repeat_interleave(angles)


def uniform(*shape: int, generator: torch.Generator | None) -> Tensor:
    """Draw from [0, 1) in float64 on the CPU."""
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def normal(*shape: int, generator: torch.Generator | None) -> Tensor:
    """Draw from the standard normal in float64 on the CPU."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def on_circle(angle: Tensor) -> Tensor:
    r"""Points :math:`(\cos t, \sin t)` of the unit circle, shape ``(N, 2)``."""
    return torch.stack([angle.cos(), angle.sin()], 1)
