r"""One door to every data set of the course: a name in, training and test points out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from flowlib.data.densities import U1, U2, U3, U4, Checkerboard, EightGaussians, Rings, TwoMoons
from flowlib.data.density import Density
from flowlib.data.folders import folder
from flowlib.data.images import cifar10, digits, mnist, patches

#: every density under its name, each a class that is called without arguments
DENSITIES: dict[str, type[Density]] = {
    density.__name__: density for density in (EightGaussians, TwoMoons, Rings, Checkerboard, U1, U2, U3, U4)
}


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    r"""Training and test points of one data set, with what a flow has to know of them.

    Attributes:
        name: the name under which it was loaded.
        train, test: points ``(N, 2)`` of the default dtype, or images ``(N, C, H, W)`` of whole numbers
            (uint8, and int64 for the digits), on the CPU. A flow takes images as floats: ``train.float()``.
        levels: for images the number L of levels, whose pixels are 0, 1, …, L−1, as ``Dequantize`` takes it;
            None for points of a density.
        train_labels, test_labels: int64, shape ``(N,)``; None where there are none.
        validation, validation_labels: points to measure with during the training, where the data set has its
            own, as patches do; otherwise None, and :meth:`hold_out` makes them.
    """

    name: str
    train: Tensor
    test: Tensor
    levels: int | None = None
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    validation: Tensor | None = None
    validation_labels: Tensor | None = None

    def hold_out(self, n: int) -> Dataset:
        """Take ``n`` training points out for validation, the same ones at every call.

        A data set whose training points overlap, as patches of a photograph do, has validation points that
        share nothing with them, and is returned as it is.

        Raises:
            ValueError: if ``n`` is negative, or no training point would be left.
        """
        if not 0 <= n < len(self.train):
            raise ValueError(f"n must be 0 or more and less than {len(self.train)}, and came as {n}.")
        if self.validation is not None or not n:
            return self
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))
        held, kept = order[:n], order[n:].sort().values
        parts = replace(self, train=self.train[kept], validation=self.train[held])
        if (labels := self.train_labels) is None:
            return parts
        return replace(parts, train_labels=labels[kept], validation_labels=labels[held])

    def __repr__(self) -> str:
        kind = "points" if self.levels is None else f"images of {self.levels} levels"
        shape = tuple(self.train.shape[1:])
        return f"Dataset({self.name}: {len(self.train)} + {len(self.test)} {kind}, each {shape})"


def load_dataset(name: str, root: str | Path | None = None, size: int = 32) -> Dataset:
    r"""Load a data set by its name, split into training and test points that are the same on every call.

    Args:
        name: a key of ``DATASETS``: a density of the plane by its name in lower case, such as
            ``"eight_gaussians"`` (20,000 training and 5,000 test points, drawn with a fixed seed), or
            ``"digits"``, ``"patches"``, ``"mnist"``, ``"cifar10"``; or ``"folder:PATH"`` for a folder.
        root: where downloaded files are kept, as for :func:`mnist`.
        size: height and width of the images of ``"patches"`` and ``"folder:PATH"``; the others have theirs.

    Raises:
        ValueError: if there is no data set of that name, and whatever the data set itself refuses.

    Example:
        >>> load_dataset("two_moons")
        Dataset(two_moons: 20000 + 5000 points, each (2,))
        >>> load_dataset("digits")
        Dataset(digits: 1437 + 360 images of 17 levels, each (1, 8, 8))
    """
    kind, _, path = name.partition(":")
    if kind == "folder" and path:
        return _images(name, partial(folder, path, size), 256)
    if name not in DATASETS:
        names = ", ".join([*DATASETS, "or folder:PATH for a folder of images"])
        raise ValueError(f"There is no data set {name!r}; choose one of {names}.")
    return DATASETS[name](root=root, size=size)


def _images(name: str, load: Callable[[str], tuple[Tensor, Tensor]], levels: int) -> Dataset:
    (train, train_labels), (test, test_labels) = load("train"), load("test")
    return Dataset(name, train, test, levels, train_labels, test_labels)


def _patches(root: str | Path | None, size: int) -> Dataset:
    validation, labels = patches(size, "validation")
    data = _images("patches", partial(patches, size), 256)
    return replace(data, validation=validation, validation_labels=labels)


def _points(name: str, density: type[Density], root: str | Path | None, size: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    train, test = (density().sample(n, generator) for n in (20_000, 5_000))
    return Dataset(name, train, test)


_BY_NAME = {re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower(): density for name, density in DENSITIES.items()}

#: every data set under its name, each a function of ``root`` and ``size`` as :func:`load_dataset` has them
DATASETS: dict[str, Callable[..., Dataset]] = {
    **{name: partial(_points, name, density) for name, density in _BY_NAME.items()},
    "digits": lambda root, size: _images("digits", digits, 17),
    "patches": _patches,
    "mnist": lambda root, size: _images("mnist", partial(mnist, root=root), 256),
    "cifar10": lambda root, size: _images("cifar10", partial(cifar10, root=root), 256),
}
