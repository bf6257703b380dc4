r"""MNIST, and the idx format that it comes in."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowlib.data.download import fetch
from flowlib.data.splits import check_split

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def mnist(split: str = "train", root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    r"""Load MNIST: 70,000 grey images of handwritten digits, 28 × 28 pixels with values 0, 1, …, 255.

    The first call fetches 12 MB with a progress bar. A download that broke off is resumed, and
    the files' checksums are compared at every call.

    Args:
        split: ``"train"`` (60,000 images), ``"test"`` (10,000) or ``"all"``.
        root: the folder of the files; if not given, that of the environment variable ``FLOWLIB_DATA``, and
            if there is none, the user's cache. On a machine without internet, put the files there by hand.

    Returns:
        the images, uint8, shape ``(N, 1, 28, 28)``, and their labels 0 … 9, int64, shape ``(N,)``, on the
        CPU. Take floats before you calculate, ``images.float()``: bytes wrap around at 256.

    Raises:
        ValueError: if ``split`` is another word, or a file is not the published one.
        ConnectionError: if a file is not there and cannot be fetched.
        OSError: if the folder cannot be written.
        ModuleNotFoundError: if pooch is not installed.

    Reference: LeCun, Bottou, Bengio and Haffner, *Gradient-Based Learning Applied to Document Recognition*,
    Proceedings of the IEEE 86(11), 1998, doi:10.1109/5.726791.
    """
    check_split(split)
    if split == "all":
        train, test = mnist("train", root), mnist("test", root)
        return torch.cat([train[0], test[0]]), torch.cat([train[1], test[1]])
    prefix = "train" if split == "train" else "t10k"
    files = [f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"]
    images, labels = (read_idx(fetch(MNIST_URL + file, MNIST_SHA256[file], root)) for file in files)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{files[0]} and {files[1]} hold arrays of shapes {images.shape} and {labels.shape} where "
            "(N, 28, 28) and (N,) belong; delete both and load them again."
        )
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()


def read_idx(path: Path) -> np.ndarray:
    r"""Read an array of bytes from a gzipped idx file.

    Four bytes 0, 0, 8 (unsigned bytes) and the number of axes, the length of each axis as a big-endian
    32-bit number, then the entries, the last axis fastest.

    Raises:
        ValueError: if the file is not like that, has too few or too many entries, or is broken.

    Example:
        >>> import gzip, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "two-idx1-ubyte.gz")
        ...     _ = path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7])))
        ...     read_idx(path)
        array([5, 7], dtype=uint8)
    """
    advice = "delete it and load it again"
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}); {advice}.") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(
            f"{path} is no idx file of bytes: it starts with {content[:4].hex(' ') or 'nothing'}, where "
            f"00 00 08 and the number of axes belong; {advice}."
        )
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path} announces an array of shape {shape}, {math.prod(shape)} bytes, and holds "
            f"{max(0, len(content) - start)}; {advice}."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


__all__ = ["MNIST_SHA256", "MNIST_URL", "mnist", "read_idx"]
