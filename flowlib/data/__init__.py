"""Data of the course: two-dimensional densities with exact answers, and images."""

from flowlib.data.datasets import DATASETS, DENSITIES, Dataset, load_dataset
from flowlib.data.densities import U1, U2, U3, U4, Checkerboard, EightGaussians, Rings, TwoMoons
from flowlib.data.density import Density
from flowlib.data.folders import folder
from flowlib.data.images import cifar10, digits, mnist, patches

__all__ = [
    "DATASETS", "DENSITIES", "U1", "U2", "U3", "U4", "Checkerboard", "Dataset", "Density", "EightGaussians",
    "Rings", "TwoMoons", "cifar10", "digits", "folder", "load_dataset", "mnist", "patches",
]  # fmt: skip
