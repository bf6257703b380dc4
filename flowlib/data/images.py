r"""Images that need no download: the handwritten digits and two photographs that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flowlib.data.splits import check_size, check_split, load_module, shuffled, split_rows


def digits(split: str = "train") -> tuple[Tensor, Tensor]:
    r"""Load the UCI handwritten digits: 1,797 grey images of 8 × 8 pixels with values 0, 1, …, 16.

    The images are integers, as the pixels are: a flow needs them dequantised first, for a density
    has nothing to say about single points.

    Args:
        split: ``"train"`` (1,437 images), ``"test"`` (the other 360) or ``"all"``. The 80/20 split is fixed:
            the same images on every machine and with every version of torch.

    Returns:
        the images, shape ``(N, 1, 8, 8)``, and their labels 0 … 9, shape ``(N,)``, both int64 on the CPU.

    Raises:
        ValueError: if ``split`` is another word.
        ModuleNotFoundError: if scikit-learn is not installed.

    Example:
        >>> images, labels = digits("test")
        >>> images.shape, int(images.max())
        (torch.Size([360, 1, 8, 8]), 16)

    Reference: Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning
    Repository, 1998, doi:10.24432/C50P49.
    """
    check_split(split)
    sklearn = load_module("sklearn.datasets", "scikit-learn", "The digits come with")
    pixels, labels = sklearn.load_digits(return_X_y=True)
    rows = split_rows(len(pixels), split)
    images = torch.from_numpy(pixels.astype(np.int64)).reshape(-1, 1, 8, 8)
    return images[rows], torch.from_numpy(labels.astype(np.int64))[rows]


def patches(size: int = 32, split: str = "train") -> tuple[Tensor, Tensor]:
    r"""Cut square patches out of two colour photographs, a temple in China and a flower.

    Each photograph, 427 × 640 pixels, is divided into upright strips, 4 · ``size`` wide for training and
    ``size`` wide for testing in turn: both see all kinds of places, and no pixel is in both. Training
    patches overlap by half, test patches touch. Their order is shuffled, the same way on every machine.

    Two photographs are little: a model that learned them does well on the neighbouring strips, and
    that says nothing about other photographs.

    Args:
        size: height and width of a patch, 1 … 128. There are 23,520 training and 1,696 test patches
            at 8, 5,824 and 416 at 16, 1,400 and 104 at 32, 336 and 24 at 64.
        split: ``"train"``, ``"test"`` or ``"all"``, which is both one after the other.

    Returns:
        the images with values 0 … 255, uint8, shape ``(N, 3, size, size)``, and as labels, int64, shape
        ``(N,)``, the photograph: 0 for the temple, 1 for the flower.

    Raises:
        ValueError: if ``size`` or ``split`` is none of these.
        ModuleNotFoundError: if scikit-learn or pillow is not installed.

    Example:
        >>> images, labels = patches(32, "test")
        >>> images.shape, images.dtype, labels.bincount()
        (torch.Size([104, 3, 32, 32]), torch.uint8, tensor([52, 52]))

    Reference: the photographs are ``china.jpg`` and ``flower.jpg`` of scikit-learn's ``load_sample_images``,
    by danielbuechele and vultilion on Flickr, CC BY 2.0.
    """
    check_split(split)
    check_size(size)
    sklearn = load_module("sklearn.datasets", "scikit-learn", "The photographs come with")
    load_module("PIL", "pillow", "Reading photographs takes")
    photographs = [torch.tensor(image).permute(2, 0, 1) for image in sklearn.load_sample_images().images]
    largest = photographs[0].shape[2] // 5
    if size > largest:
        raise ValueError(f"size is at most {largest}, a fifth of the photographs' width, and came as {size}.")
    if split == "all":
        train, test = patches(size, "train"), patches(size, "test")
        return torch.cat([train[0], test[0]]), torch.cat([train[1], test[1]])
    found = [_windows(photograph, size, split) for photograph in photographs]
    labels = torch.arange(len(found)).repeat_interleave(torch.tensor([len(windows) for windows in found]))
    order = shuffled(len(labels))
    return torch.cat(found)[order], labels[order]


def _windows(photograph: Tensor, size: int, split: str) -> Tensor:
    """The patches ``(N, 3, size, size)`` of one photograph ``(3, H, W)``, row by row."""
    pairs = photograph.unfold(2, 5 * size, 5 * size)  # (3, H, pairs of strips, 5 size)
    strips, step = (
        (pairs[..., : 4 * size], max(1, size // 2)) if split == "train" else (pairs[..., 4 * size :], size)
    )
    grid = strips.unfold(1, size, step).unfold(3, size, step)  # (3, rows, pairs, columns, size, size)
    return grid.permute(1, 2, 3, 0, 4, 5).reshape(-1, 3, size, size)


__all__ = ["digits", "patches"]
