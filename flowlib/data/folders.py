"""A folder of one's own images as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowlib.data.images import check_size, check_split, load_module, split_rows

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def folder(path: str | Path, size: int = 32, split: str = "train") -> tuple[Tensor, Tensor]:
    r"""Load a folder of images: the largest square about each one's centre, resized to ``size`` × ``size``.

    If the folder has sub-folders with images, each is a class, numbered in the order of their names.
    Otherwise all labels are 0. Images may lie deeper inside a class. Files that are no images by their ending
    (``.jpg``, ``.png``, ``.webp`` and other usual ones count) and hidden ones are passed over.

    Photographs are turned upright as their cameras recorded, transparent parts become white, grey becomes
    colour, and of an animation the first frame counts.

    Args:
        path: the folder; ``~`` is the home folder.
        size: height and width of the result, 1 or more.
        split: ``"train"`` (four fifths), ``"test"`` (the others) or ``"all"`` in the order of the names. The
            split is a fixed shuffle of the sorted names: the same on every machine while the names stay.

    Returns:
        the images with values 0 … 255, uint8, shape ``(N, 3, size, size)``, and their labels, int64, shape
        ``(N,)``, on the CPU. Take floats before you calculate, ``images.float()``: bytes wrap around at 256.

    Raises:
        NotADirectoryError: if ``path`` is no folder.
        ValueError: if ``size`` or ``split`` is none of these, if the folder has no images, a single one to be
            split, or images both beside and inside its classes, or if a file cannot be read; the message
            names it.
        ModuleNotFoundError: if pillow is not installed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as path:
        ...     for name in "abcde":
        ...         Image.new("L", (40, 30)).save(f"{path}/{name}.png")
        ...     images, labels = folder(path, size=16)
        >>> images.shape, labels
        (torch.Size([4, 3, 16, 16]), tensor([0, 0, 0, 0]))
    """
    check_split(split)
    check_size(size)
    load_module("PIL.Image", "pillow", "Reading images takes")
    top = Path(path).expanduser()
    if not top.is_dir():
        raise NotADirectoryError(f"{top} is no folder; give the path of a folder with images in it.")
    names = _names(top)
    classes = sorted({name.parts[0] for name in names if len(name.parts) > 1})
    if classes and (beside := next((name for name in names if len(name.parts) == 1), None)):
        raise ValueError(
            f"{top} has sub-folders with images, which are classes, and images beside them, such as "
            f"{beside}, which have none; move those into a sub-folder, or give one sub-folder's path."
        )
    if len(names) < 2 and split != "all":
        raise ValueError(f'{top} holds a single image, which cannot be split; add more, or take split="all".')
    chosen = [names[row] for row in split_rows(len(names), split)]
    images = torch.empty(len(chosen), 3, size, size, dtype=torch.uint8)
    for image, name in zip(images, chosen, strict=True):
        image.copy_(_read(top / name, size))
    return images, torch.tensor([classes.index(name.parts[0]) if classes else 0 for name in chosen])


def _names(top: Path) -> list[Path]:
    """The images below a folder, relative to it, sorted alike on every system."""
    files = [file for file in top.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    names = [file.relative_to(top) for file in files]
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        endings = ", ".join(sorted(SUFFIXES))
        raise ValueError(f"{top} holds no images; their names must end in {endings}, in either case.")
    return sorted(names, key=lambda name: name.parts)


def _read(file: Path, size: int) -> Tensor:
    """Read one image as bytes, shape ``(3, size, size)``."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):  # pillow would cut its values off at 255
                raise ValueError("it has more than 8 bits a channel; save it with 8")
            image.draft("RGB", (2 * size, 2 * size))  # lets a large JPEG be decoded at a fraction of its size
            upright = _opaque(ImageOps.exif_transpose(image))
            side = min(upright.size)
            left, top = ((length - side) // 2 for length in upright.size)
            square = upright.crop((left, top, left + side, top + side))
            fitted = square.resize((size, size), Image.Resampling.LANCZOS)
    # a damaged PNG is a SyntaxError to pillow
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        advice = "repair, replace or remove it"
        raise ValueError(f"{file} cannot be read as an image ({error}); {advice}.") from error
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def _opaque(image: Any) -> Any:
    """Colours on white where an image is transparent: what lies hidden there is often black or noise."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
