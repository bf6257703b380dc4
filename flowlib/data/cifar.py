r"""CIFAR-10, in its binary version: records of bytes in an archive."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowlib.data.download import fetch
from flowlib.data.splits import check_split

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# of the archive whose MD5 is c32a1d4ab5d03f1284b67883e8d87530, which is what its authors publish
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
BATCHES = {
    "train": [f"{FOLDER}/data_batch_{k}.bin" for k in range(1, 6)],
    "test": [f"{FOLDER}/test_batch.bin"],
}
BATCHES["all"] = BATCHES["train"] + BATCHES["test"]


def cifar10(split: str = "train", root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    r"""Load CIFAR-10: 60,000 colour images of ten kinds of things, 32 × 32 pixels with values 0, 1, …, 255.

    The first call fetches 170 MB with a progress bar. A download that broke off is resumed, and
    the archive's checksum is compared at every call.

    Args:
        split: ``"train"`` (50,000 images), ``"test"`` (10,000) or ``"all"``.
        root: the folder of the archive; if not given, that of the environment variable ``FLOWLIB_DATA``, and
            if there is none, the user's cache. On a machine without internet, put the archive there by hand.

    Returns:
        the images, uint8, shape ``(N, 3, 32, 32)``, channels red, green, blue, and their labels, int64, shape
        ``(N,)``, on the CPU. The labels are 0 aeroplane, 1 car, 2 bird, 3 cat, 4 deer, 5 dog, 6 frog, 7
        horse, 8 ship, 9 lorry. Take floats before you calculate, ``images.float()``: bytes wrap around at
        256.

    Raises:
        ValueError: if ``split`` is another word, or the archive is not the published one.
        ConnectionError: if the archive is not there and cannot be fetched.
        OSError: if the folder cannot be written.
        ModuleNotFoundError: if pooch is not installed.

    Reference: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, technical report,
    University of Toronto, 2009.
    """
    check_split(split)
    path = fetch(CIFAR10_URL, CIFAR10_SHA256, root)
    records = np.concatenate([_records(path, name, batch) for name, batch in _members(path, BATCHES[split])])
    images = torch.from_numpy(records[:, 1:]).reshape(-1, 3, 32, 32)
    return images, torch.from_numpy(records[:, 0].astype(np.int64))


def _members(path: Path, names: list[str]) -> list[tuple[str, bytes]]:
    """Read files out of an archive in one pass; nothing is unpacked to the disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.name in names and (file := archive.extractfile(member)) is not None:
                    found[member.name] = file.read()
                if len(found) == len(names):
                    break
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is not a whole tar.gz archive ({error}); delete it and load it again."
        ) from error
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}, which the binary version of CIFAR-10 has; delete it and "
            "load it again."
        )
    return [(name, found[name]) for name in names]


def _records(path: Path, name: str, batch: bytes) -> np.ndarray:
    """Split a batch into records: a byte for the label, then 3 · 32 · 32 for the pixels."""
    length = 1 + 3 * 32 * 32
    records = np.frombuffer(batch, np.uint8)
    if not len(records) or len(records) % length or records[::length].max() > 9:
        raise ValueError(
            f"{name} in {path} does not consist of records of {length} bytes with labels from 0 to 9; delete "
            "the archive and load it again."
        )
    return records.reshape(-1, length)


__all__ = ["CIFAR10_SHA256", "CIFAR10_URL", "cifar10"]
