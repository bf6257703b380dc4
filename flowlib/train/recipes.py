"""Settings to start from, by the model and the data, for whom gives none."""

from __future__ import annotations

import math
from typing import Any

from flowlib.data import Dataset
from flowlib.train.flow_for import sizes_of

#: the keywords of the models that are options of the command line
MODEL_SIZES = ("layers", "scales", "hidden", "bins", "box", "components", "heads", "extra")
#: of the training, by what the data are
TRAINING: dict[str, dict[str, Any]] = {
    "points": {"steps": 2000, "batch_size": 256, "lr": 1e-3, "ema": 0.0},
    "small images": {"steps": 800, "batch_size": 64, "lr": 1e-3, "ema": 0.99},
    "images": {"steps": 20_000, "batch_size": 64, "lr": 1e-3, "ema": 0.999},
}
#: of the models, where those of their constructors, made for the plane and for 4 × 4 pixels, are too small
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "points": {},
    "small images": {
        "realnvp_multiscale": {"scales": 2, "hidden": (32, 32)},
        "glow": {"layers": 8, "scales": 3, "hidden": (32,)},
        "wavelet": {"layers": 8, "scales": 3, "hidden": (32,)},
    },
    "images": {
        "maf": {"layers": 5, "hidden": (1024, 1024)},
        "iaf": {"layers": 5, "hidden": (1024, 1024)},
        "realnvp_multiscale": {"scales": 3, "hidden": (64, 64, 64)},
        "glow": {"layers": 16, "scales": 3, "hidden": (128,)},
        "wavelet": {"layers": 16, "scales": 3, "hidden": (128,)},
    },
}


def recipe(model: str, data: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sizes of the model, and the training's settings.

    An image that cannot be halved as often as the recipe has it gets fewer scales.

    Example:
        >>> from flowlib.data import load_dataset
        >>> recipe("planar", load_dataset("two_moons"))
        ({'layers': 8}, {'steps': 2000, 'batch_size': 256, 'lr': 0.001, 'ema': 0.0})
    """
    point = data.train[0]
    kind = "points" if data.levels is None else "small images" if point.numel() <= 256 else "images"
    sizes = {name: value for name, value in sizes_of(model).items() if name in MODEL_SIZES}
    sizes |= SIZES[kind].get(model, {})
    if "scales" in sizes and point.dim() == 3:
        side = math.gcd(*point.shape[1:])
        halvings = (side & -side).bit_length() - 1  # how often 2 divides it
        sizes["scales"] = max(1, min(sizes["scales"], halvings))
    return sizes, dict(TRAINING[kind])


__all__ = ["MODEL_SIZES", "recipe"]
