r"""Images that need no download: the handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


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
    if split not in ("train", "test", "all"):
        raise ValueError(f'split must be "train", "test" or "all" and came as {split!r}.')
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The digits come with scikit-learn, which is not installed: pip install scikit-learn."
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels.astype(np.int64)).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(labels.astype(np.int64))
    if split == "all":
        return images, labels
    # RandomState is frozen by numpy's compatibility policy; newer generators may change their streams
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(images)))
    cut = len(images) * 4 // 5
    rows = order[:cut] if split == "train" else order[cut:]
    return images[rows], labels[rows]


__all__ = ["digits"]
