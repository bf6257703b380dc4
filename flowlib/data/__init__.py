"""Data of the course: two-dimensional densities with exact answers, and small images."""

from flowlib.data.density import Density
from flowlib.data.energies import U1, U2, U3, U4
from flowlib.data.images import digits
from flowlib.data.toys import Checkerboard, EightGaussians, Rings, TwoMoons

#: every density under its name, each a class that is called without arguments
DENSITIES: dict[str, type[Density]] = {
    density.__name__: density for density in (EightGaussians, TwoMoons, Rings, Checkerboard, U1, U2, U3, U4)
}

__all__ = [
    "DENSITIES",
    "U1",
    "U2",
    "U3",
    "U4",
    "Checkerboard",
    "Density",
    "EightGaussians",
    "Rings",
    "TwoMoons",
    "digits",
]
