"""Data of the course: two-dimensional densities with exact answers, and images."""

from flowlib.data.cifar import cifar10
from flowlib.data.datasets import DATASETS, DENSITIES, Dataset, load_dataset
from flowlib.data.density import Density
from flowlib.data.energies import U1, U2, U3, U4
from flowlib.data.folders import folder
from flowlib.data.idx import mnist
from flowlib.data.images import digits, patches
from flowlib.data.toys import Checkerboard, EightGaussians, Rings, TwoMoons

__all__ = [
    "DATASETS",
    "DENSITIES",
    "U1",
    "U2",
    "U3",
    "U4",
    "Checkerboard",
    "Dataset",
    "Density",
    "EightGaussians",
    "Rings",
    "TwoMoons",
    "cifar10",
    "digits",
    "folder",
    "load_dataset",
    "mnist",
    "patches",
]
