"""Splits that are the same on every machine, and what the loaders of images check alike."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_split(split: str) -> None:
    """Refuse a ``split`` that no loader of images has."""
    if split not in ("train", "test", "all"):
        raise ValueError(f'split must be "train", "test" or "all" and came as {split!r}.')


def check_size(size: int) -> None:
    """Refuse a ``size`` that is no side of an image."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, 1 or more, and came as {size!r}.")


def split_rows(n: int, split: str) -> Tensor:
    """Return which of ``n`` rows belong to a split: four fifths, shuffled, to train, the others to test.

    Example:
        >>> [len(split_rows(11, split)) for split in ("train", "test", "all")]
        [8, 3, 11]
    """
    check_split(split)
    if split == "all":
        return torch.arange(n)
    order = shuffled(n)
    cut = n * 4 // 5
    return order[:cut] if split == "train" else order[cut:]


def shuffled(n: int) -> Tensor:
    """Return 0, …, n−1 in an order that is always the same."""
    # RandomState is frozen by numpy's compatibility policy; newer generators may change their streams
    return torch.from_numpy(np.random.RandomState(0).permutation(n))


def load_module(name: str, package: str, purpose: str) -> Any:
    """Import a module that only some data need, or say what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{purpose} {package}, which is not installed: pip install {package}."
        ) from error


__all__ = ["check_size", "check_split", "load_module", "shuffled", "split_rows"]
