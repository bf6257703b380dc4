r"""Base distributions :math:`p_Z`: easy to sample, easy to evaluate.

Samples are drawn on the CPU in float64 and then moved, so that one seed gives the same
points on every device and in every precision.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Transform

from flowlib.bijection import check_event, sum_event

_DRAW: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}


class Base(nn.Module):
    """A base density over points of shape ``event_shape``.

    Subclasses write :meth:`log_prob` and :meth:`sample`. The dtype and device are those of
    the module: ``base.double()`` and ``base.to("cuda")`` change what :meth:`sample` returns.

    Args:
        event_shape: the shape of one point, such as ``(2,)`` or ``(3, 32, 32)``; an int
            ``d`` means ``(d,)``.

    Raises:
        ValueError: if a size in ``event_shape`` is not a positive whole number.
    """

    anchor: Tensor

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        shape = tuple(event_shape) if isinstance(event_shape, Sequence) else (event_shape,)
        if not shape or not all(type(size) is int and size > 0 for size in shape):
            raise ValueError(f"event_shape must hold positive whole numbers, such as (2,), not {shape}.")
        self.event_shape = torch.Size(shape)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of samples and densities."""
        return self.anchor.dtype

    @property
    def device(self) -> torch.device:
        """Where samples are returned."""
        return self.anchor.device

    def log_prob(self, z: Tensor) -> Tensor:
        r"""Return :math:`\log p_Z(z)`, shape ``(B,)``, for ``z`` of shape ``(B, *event_shape)``."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob(z).")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` points, shape ``(n, *event_shape)``; ``generator`` is a CPU generator."""
        raise NotImplementedError(f"{type(self).__name__} has no sample(n, generator).")


class StandardNormal(Base):
    r"""The isotropic Gaussian :math:`\mathcal{N}(0, I_d)`.

    .. math:: \log p_Z(z) = -\tfrac12 \lVert z \rVert^2 - \tfrac d2 \log 2\pi

    Example:
        >>> import torch
        >>> base = StandardNormal(2)
        >>> base.log_prob(torch.zeros(1, 2))  # -log(2 pi)
        tensor([-1.8379])
        >>> base.sample(3).shape
        torch.Size([3, 2])
    """

    def log_prob(self, z: Tensor) -> Tensor:
        check_event(z, self.event_shape)
        d = self.event_shape.numel()
        return -0.5 * sum_event(z * z) - 0.5 * d * math.log(2 * math.pi)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        draws = torch.randn(n, *self.event_shape, generator=generator, **_DRAW)
        return draws.to(self.anchor)


class UniformBox(Base):
    r"""The uniform density on the box :math:`[\mathrm{low}, \mathrm{high}]^d`.

    .. math::
        \log p_Z(z) = -d \log(\mathrm{high} - \mathrm{low})
        \text{ inside the closed box, and } -\infty \text{ outside}

    Args:
        event_shape: the shape of one point.
        low, high: the ends of every side.

    Raises:
        ValueError: if ``low`` is not below ``high``, or either is not finite.

    Example:
        >>> import torch
        >>> UniformBox(1, 0.0, 2.0).log_prob(torch.tensor([[1.0], [3.0]])).exp()
        tensor([0.5000, 0.0000])
    """

    def __init__(self, event_shape: int | Sequence[int], low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(event_shape)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"low must be below high, both finite; they came as low={low}, high={high}.")
        self.low, self.high = float(low), float(high)

    def log_prob(self, z: Tensor) -> Tensor:
        check_event(z, self.event_shape)
        inside = ((z >= self.low) & (z <= self.high)).flatten(1).all(1)
        density = -self.event_shape.numel() * math.log(self.high - self.low)
        return torch.where(inside, z.new_tensor(density), z.new_tensor(-math.inf))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        draws = torch.rand(n, *self.event_shape, generator=generator, **_DRAW)
        return (self.low + (self.high - self.low) * draws).to(self.anchor)


class TorchBase(Base):
    r"""A distribution of ``torch.distributions`` as a base density.

    .. math::
        \log p_Z(z) = \sum_i \log p_i(z_i) \text{ on the support, and } -\infty \text{ outside},

    where :math:`i` runs over the batch shape: its entries are independent coordinates of one point, so
    ``Normal(torch.zeros(2), torch.ones(2))`` is a base of the plane. The distribution's parameters are
    constants: they move with the flow to its dtype and device, and training leaves them as they are.

    Args:
        distribution: one whose batch shape and event shape make up the shape of a point.

    Raises:
        ValueError: if both are empty: ``Normal(0.0, 1.0)`` is of numbers, not of points.

    Example:
        >>> import torch
        >>> base = TorchBase(torch.distributions.Laplace(torch.zeros(2), torch.ones(2)))
        >>> base.log_prob(torch.zeros(1, 2))  # -2 log 2
        tensor([-1.3863])
    """

    def __init__(self, distribution: Distribution) -> None:
        super().__init__(distribution.batch_shape + distribution.event_shape)
        self.distribution = copy.deepcopy(Independent(distribution, len(distribution.batch_shape)))
        self.to(distribution.sample())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchBase:
        _change(self.distribution, fn)
        return super()._apply(fn, recurse)

    def log_prob(self, z: Tensor) -> Tensor:
        if not z.shape[0]:  # of no points, torch's supports cannot tell where they are
            return z.new_zeros(0)
        inside = self.distribution.support.check(z)  # type: ignore[union-attr]
        return torch.where(inside, self.distribution.log_prob(z), -math.inf)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        exact = copy.deepcopy(self).cpu().double().distribution
        # distributions draw from torch's own generator alone, so it is seeded from the one given
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return exact.sample((n,)).to(self.anchor)


def _change(part: Any, fn: Callable[[Tensor], Tensor]) -> None:
    """Change every tensor of a distribution in place, and switch off torch's look at values."""
    for name, value in vars(part).items():
        if isinstance(value, Tensor):
            vars(part)[name] = fn(value.detach())
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Distribution | Transform):
                _change(inner, fn)
    part._validate_args = False


__all__ = ["Base", "StandardNormal", "TorchBase", "UniformBox"]
