"""Who takes part in lecture 16's comparison: rows of ``MODELS``, models of whole numbers, and energies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks import energy
from benchmarks.categorical import PixelTransformer, categorical, made
from flowlib import Flow, fit, fit_matching
from flowlib.data import Dataset, load_dataset
from flowlib.train.flow_for import flow_for


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        family: coupling, autoregressive, continuous, whole numbers, energy or another kind of flow.
        kind: what its number of bits is: an exact value, a bound from above, or an estimate.
        make: builds it.
        settings: of the training, where they are not the usual ones.
        train: the training; ``fit`` if not given.
        labels: whether it is told the class.
        image: whether it takes images, or their pixels in a row.
    """

    family: str
    kind: str
    make: Callable[[], Flow]
    settings: dict[str, Any] = field(default_factory=dict)
    train: Callable[..., Any] = fit
    labels: bool = False
    image: bool = False


USUAL: dict[str, Any] = {"batch_size": 64, "lr": 3e-3, "ema": 0.99, "progress": False}


@cache
def digits() -> Dataset:
    """The digits, a tenth of the training images held out, pixels in a row."""
    return load_dataset("digits").hold_out(143)


def parts(row: Row) -> dict[str, Tensor]:
    """The images as this model takes them."""
    data = digits()
    images = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: (x if row.image else x.flatten(1)).float() for name, x in images.items()}  # type: ignore


def classes(row: Row) -> dict[str, Tensor | None]:
    """One row for each image that says its class, if the model is told."""
    data = digits()
    labels = {"train": data.train_labels, "validation": data.validation_labels, "test": data.test_labels}
    return {name: one_hot(y, 10).float() if row.labels else None for name, y in labels.items()}  # type: ignore


def in_a_row() -> Dataset:
    """The digits as vectors, for models that could take images and here do not."""
    data = digits()
    vectors = {name: getattr(data, name).flatten(1) for name in ("train", "test", "validation")}
    return Dataset("digits", levels=17, **vectors)


def flow(family: str, model: str, labels: bool = False, image: bool = False, **sizes: Any) -> Row:
    """A row of ``MODELS``, with the usual steps from whole numbers to the real line."""
    train, settings = sizes.pop("train", fit), sizes.pop("settings", {})

    def make() -> Flow:
        return flow_for(digits() if image else in_a_row(), model, 10 if labels else 0, **sizes)

    return Row(family, "bound", make, settings, train, labels, image)


def energy_based(loss: Callable[[], Any], lr: float) -> Row:
    """The energy of a Gaussian and of a network, with its own way to train."""

    def make() -> Flow:
        layers = energy.whitening(parts_flat()["train"])
        return energy.EnergyFlow(layers, energy.Energy(64), loss())

    return Row("energy", "estimate", make, {"lr": lr, "validation": None})


def parts_flat() -> dict[str, Tensor]:
    """The images with their pixels in a row."""
    return parts(Row("", "", lambda: None))  # type: ignore[arg-type, return-value]


WIDE: dict[str, Any] = {"layers": 8, "hidden": (256, 256)}
DEEP: dict[str, Any] = {"layers": 8, "scales": 3, "hidden": (32,), "image": True}
STEEP = {"lr": 4e-3}
PATCHES: dict[str, Any] = {"image": True, "layers": 4, "hidden": (64, 64), "patch": 4}
PATCHES["settings"] = STEEP | {"batch_size": 32}
VELOCITY: dict[str, Any] = {"hidden": (256, 256), "steps": 4, "settings": STEEP}
ROWS: dict[str, Row] = {
    "linear": flow("other flow", "linear", settings=STEEP),
    "planar": flow("other flow", "planar", layers=32, settings=STEEP),
    "radial": flow("other flow", "radial", layers=32, settings=STEEP),
    "NICE": flow("coupling", "nice", **WIDE),
    "RealNVP": flow("coupling", "realnvp", **WIDE),
    "multi-scale RealNVP": flow("coupling", "realnvp_multiscale", image=True, scales=2, hidden=(32, 32)),
    "Glow": flow("coupling", "glow", **DEEP),
    "spline coupling": flow("coupling", "spline", layers=8, hidden=(128, 128), bins=8),
    "Flow++": flow("coupling", "flowpp", layers=4, hidden=(128, 128), components=8),
    "VFlow": flow("coupling", "vflow", extra=32, **WIDE),
    "Wavelet Flow": flow("coupling", "wavelet", **DEEP),
    "MAF": flow("autoregressive flow", "maf", layers=5, hidden=(256, 256)),
    "IAF": flow("autoregressive flow", "iaf", layers=3, hidden=(256, 256), settings=STEEP),
    "spline MAF": flow("autoregressive flow", "spline_ar", layers=3, hidden=(256, 256), bins=8),
    "TarFlow": flow("autoregressive flow", "tarflow", **PATCHES),
    "FFJORD": flow("continuous", "ffjord", **VELOCITY),
    "flow matching": flow("continuous", "ffjord", train=fit_matching, **VELOCITY),
    "categorical MADE": Row("whole numbers", "exact", lambda: made(64, (256,)), STEEP),
    "categorical MADE, labels": Row(
        "whole numbers", "exact", lambda: made(64, (256,), features=10), STEEP, labels=True
    ),
    "causal transformer": Row(
        "whole numbers",
        "exact",
        lambda: categorical(PixelTransformer(64, 17)),
        {"batch_size": 16, "lr": 6e-3},
    ),
    "energy, score matching": energy_based(lambda: energy.DenoisingScoreMatching(0.3), 2e-3),
    "energy, contrastive": energy_based(lambda: energy.ContrastiveDivergence(64, 256, 10, 0.02), 1e-3),
}

__all__ = ["ROWS", "USUAL", "Row", "classes", "digits", "parts", "parts_flat"]
