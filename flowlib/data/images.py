r"""Images: digits and photographs that come with scikit-learn, and MNIST and CIFAR-10 from the internet."""

from __future__ import annotations

import gzip
import importlib.util
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/"
# of the archive whose MD5 is c32a1d4ab5d03f1284b67883e8d87530, which is what its authors publish
CIFAR10_SHA256 = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
}
# where in each five sizes of a photograph's width the strips of a split begin and end
STRIPS = {"train": (0, 3), "validation": (3, 4), "test": (4, 5)}


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

    Each photograph, 427 × 640 pixels, is divided into upright strips, in turn 3 · ``size`` wide for
    training, ``size`` wide for validation and ``size`` wide for testing: all three see all kinds of places,
    and no pixel is in two of them. Training patches overlap by half, the others touch. Held-out patches
    drawn from the training ones would share nearly all their pixels with the rest, and validation with
    them would measure memory. The order is shuffled, the same way on every machine.

    Two photographs are little: a model that learned them does well on the neighbouring strips, and
    that says nothing about other photographs.

    Args:
        size: height and width of a patch, 1 … 128. There are 16,800 training patches at 8, 4,160 at 16,
            1,000 at 32 and 240 at 64, and for validation and testing 1,696, 416, 104 and 24 each.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``, which is one after the other.

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
    check_split(split, *STRIPS)
    check_size(size)
    sklearn = load_module("sklearn.datasets", "scikit-learn", "The photographs come with")
    load_module("PIL", "pillow", "Reading photographs takes")
    photographs = [torch.tensor(image).permute(2, 0, 1) for image in sklearn.load_sample_images().images]
    largest = photographs[0].shape[2] // 5
    if size > largest:
        raise ValueError(f"size is at most {largest}, a fifth of the photographs' width, and came as {size}.")
    images, labels = [], []
    for part in STRIPS if split == "all" else [split]:
        found = [_windows(photograph, size, part) for photograph in photographs]
        order = shuffled(sum(map(len, found)))
        images.append(torch.cat(found)[order])
        labels.append(torch.arange(2).repeat_interleave(len(found[0]))[order])
    return torch.cat(images), torch.cat(labels)


def _windows(photograph: Tensor, size: int, split: str) -> Tensor:
    """The patches ``(N, 3, size, size)`` of one photograph ``(3, H, W)``, row by row."""
    start, stop = STRIPS[split]
    # of shape (3, H, strips, width), then (3, rows, strips, columns, size, size)
    strips = photograph.unfold(2, 5 * size, 5 * size)[..., start * size : stop * size]
    step = max(1, size // 2) if split == "train" else size
    grid = strips.unfold(1, size, step).unfold(3, size, step)
    return grid.permute(1, 2, 3, 0, 4, 5).reshape(-1, 3, size, size)


def mnist(split: str = "train", root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    r"""Load MNIST: 70,000 grey images of handwritten digits, 28 × 28 pixels with values 0, 1, …, 255.

    The first call fetches 12 MB with a progress bar; the files' checksums are compared at every call, and
    one that is damaged is fetched anew.

    Args:
        split: ``"train"`` (60,000 images), ``"test"`` (10,000) or ``"all"``.
        root: the folder of the files; if not given, that of the environment variable ``FLOWLIB_DATA``, and
            if there is none, the user's cache. On a machine without internet, put the files there by hand.

    Returns:
        the images, uint8, shape ``(N, 1, 28, 28)``, and their labels 0 … 9, int64, shape ``(N,)``, on the
        CPU. Take floats before you calculate, ``images.float()``: bytes wrap around at 256.

    Raises:
        ValueError: if ``split`` is another word, or what was fetched is not the published file.
        ConnectionError: if a file is not there and cannot be fetched.
        OSError: if the folder cannot be written.
        ModuleNotFoundError: if pooch is not installed.

    Reference: LeCun, Bottou, Bengio and Haffner, *Gradient-Based Learning Applied to Document Recognition*,
    Proceedings of the IEEE 86(11), 1998, doi:10.1109/5.726791.
    """
    check_split(split)
    prefixes = {"train": ["train"], "test": ["t10k"], "all": ["train", "t10k"]}[split]

    def read(kind: str, header: int) -> Tensor:
        paths = [_fetch(MNIST_URL, f"{prefix}-{kind}-ubyte.gz", MNIST_SHA256, root) for prefix in prefixes]
        contents = [bytearray(gzip.decompress(path.read_bytes())) for path in paths]
        return torch.cat([torch.frombuffer(c, dtype=torch.uint8, offset=header) for c in contents])

    return read("images-idx3", 16).reshape(-1, 1, 28, 28), read("labels-idx1", 8).long()


def cifar10(split: str = "train", root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    r"""Load CIFAR-10: 60,000 colour images of ten kinds of things, 32 × 32 pixels with values 0, 1, …, 255.

    The first call fetches 170 MB with a progress bar; the archive's checksum is compared at every call,
    and one that is damaged is fetched anew.

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
        ValueError: if ``split`` is another word, or what was fetched is not the published archive.
        ConnectionError: if the archive is not there and cannot be fetched.
        OSError: if the folder cannot be written.
        ModuleNotFoundError: if pooch is not installed.

    Reference: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, technical report,
    University of Toronto, 2009.
    """
    check_split(split)
    train = [f"data_batch_{k}.bin" for k in range(1, 6)]
    names = {"train": train, "test": ["test_batch.bin"], "all": [*train, "test_batch.bin"]}[split]
    with tarfile.open(_fetch(CIFAR10_URL, "cifar-10-binary.tar.gz", CIFAR10_SHA256, root)) as archive:
        files: list[Any] = [archive.extractfile(f"cifar-10-batches-bin/{name}") for name in names]
        content = bytearray().join(file.read() for file in files)
    # each record is a label and its pixels
    records = torch.frombuffer(content, dtype=torch.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


def _fetch(url: str, name: str, sha256: dict[str, str], root: str | Path | None) -> Path:
    """The path of a file with exactly this checksum, fetched if it is not there or another."""
    pooch = load_module("pooch", "pooch", "Downloads take")
    requests = load_module("requests", "requests", "Downloads take")
    folder = root or os.environ.get("FLOWLIB_DATA") or pooch.os_cache("flowlib")
    store = pooch.create(folder, url, registry=sha256, retry_if_failed=2)
    # the checksum is of the file as it is stored, so nothing may pack or unpack it on the way
    headers, bar = {"Accept-Encoding": "identity"}, importlib.util.find_spec("tqdm") is not None
    downloader = pooch.HTTPDownloader(bar, headers=headers, hooks={"response": _keep_as_stored})
    try:
        return Path(store.fetch(name, downloader=downloader))
    except requests.RequestException as error:
        advice = f"Try again later, or put the file into {store.path} by hand."
        raise ConnectionError(f"{url}{name} could not be fetched ({error}). {advice}") from error


def _keep_as_stored(reply: Any, **options: Any) -> None:
    """Checksums are of the file as it is stored, so nothing may unpack it on the way."""
    reply.raw.headers.pop("Content-Encoding", None)


def check_split(split: str, *splits: str) -> None:
    """Refuse a ``split`` that the data do not have."""
    splits = (*(splits or ("train", "test")), "all")
    if split not in splits:
        raise ValueError(f"split must be one of {', '.join(splits)} and came as {split!r}.")


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
    order, cut = shuffled(n), n * 4 // 5
    return {"train": order[:cut], "test": order[cut:], "all": torch.arange(n)}[split]


def shuffled(n: int) -> Tensor:
    """Return 0, …, n−1 in an order that is always the same."""
    # RandomState is frozen by numpy's compatibility policy; newer generators may change their streams
    return torch.from_numpy(np.random.RandomState(0).permutation(n))


def load_module(name: str, package: str, purpose: str) -> Any:
    """Import a module that only some data need, or say what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        advice = f"which is not installed: pip install {package}."
        raise ModuleNotFoundError(f"{purpose} {package}, {advice}") from error
