"""The numbers that flowlib is to reach, and the place of each in the results. Needs none of the libraries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A number of flowlib's that is to stay below a bound.

    Attributes:
        name: what is measured, as a reader would say it.
        bound: the number to stay below, or to reach.
        part: ``"speed"`` or ``"quality"``, the results that hold it.
        keys: the way to the number inside those results.
        why: if the target is missed, the reason in a sentence or two.
    """

    name: str
    bound: float
    part: str
    keys: tuple[str, ...]
    why: str = ""

    def measured(self, results: Mapping[str, Results]) -> float | None:
        """The number, or None where there is none, as for a model that does not compile.

        Example:
            >>> target = Target("RealNVP", 1.15, "speed", ("families", "realnvp", "ratio"))
            >>> target.measured({"speed": {"families": {"realnvp": {"ratio": 1.1}}}})
            1.1
        """
        found: Any = results[self.part]
        for key in self.keys:
            if key not in found:
                return None
            found = found[key]
        return float(found)

    def verdict(self, results: Mapping[str, Results]) -> str:
        """``"met"``, or by how much it is not.

        Example:
            >>> Target("MAF", 2.0, "speed", ("ratio",)).verdict({"speed": {"ratio": 3.0}})
            'missed by 50 %'
        """
        number = self.measured(results)
        if number is None:
            return "not measured"
        return "met" if number <= self.bound else f"missed by {100 * (number / self.bound - 1):.0f} %"


def _time(name: str, family: str, what: str, how: str, bound: float, why: str = "") -> Target:
    return Target(name, bound, "speed", ("families", family, "entries", "flowlib", what, how, "ratio"), why)


def _bits(name: str, family: str, bound: float, why: str = "") -> Target:
    keys = ("tasks", "digits", "families", family, "entries", "flowlib", "mean")
    return Target(name, bound, "quality", keys, why)


# why some are missed
_MASKED = (
    "The couplings mask: their networks see all entries and serve all, where half would do, and the products "
    "of the other half are thrown away. These wider networks alone take {} times the unit."
)
_MATRICES = (
    "Half of what is added are the 1×1 convolutions, whose matrix is learned and built from its factors at "
    "every step; FrEIA, nearest to the target, keeps its matrices fixed."
)
_STARTING = "It is a chain of small operations, in either library; the time is that of starting them."
_ENTRIES = (
    "The products are those of one pass; the rest is the time of starting the small operations of 64 steps "
    "in each layer."
)
_TRACE = "The exact trace of the velocity's Jacobian costs about as much as the velocity itself."

TARGETS = (
    _time("RealNVP, training step", "realnvp", "train", "eager", 1.15, _MASKED.format("1.2")),
    _time("Glow, training step", "glow", "train", "eager", 1.06, _MATRICES),
    _time("MAF, training step", "maf", "train", "eager", 1.2),
    _time("Spline coupling, training step", "spline", "train", "eager", 2.0, _MASKED.format("1.8")),
    _time("Planar flow, training step beside that of normflows", "planar", "train", "eager", 0.25, _STARTING),
    _time("Continuous flow, training step", "continuous", "train", "eager", 2.2),
    _time("RealNVP, compiled training step", "realnvp", "train", "compiled", 1.0, _MASKED.format("1.2")),
    _time("Glow, compiled training step", "glow", "train", "compiled", 1.0, _MATRICES),
    _time("MAF, compiled training step", "maf", "train", "compiled", 1.0),
    _time(
        "Spline coupling, compiled training step", "spline", "train", "compiled", 1.4, _MASKED.format("1.8")
    ),
    _time("Continuous flow, compiled training step", "continuous", "train", "compiled", 1.0, _TRACE),
    _time("MAF, samples in d = 64 beside one pass", "maf", "sample", "eager", 6.0, _ENTRIES),
    _bits("RealNVP, bits per dimension of the digits", "realnvp", 2.29),
    _bits("MAF, bits per dimension of the digits", "maf", 2.22),
    _bits("Spline coupling, bits per dimension of the digits", "spline", 2.08),
)

__all__ = ["TARGETS", "Target"]
