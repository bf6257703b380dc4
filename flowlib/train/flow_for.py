r"""A flow for a data set: a row of MODELS, with the steps between whole-number pixels and the real line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from flowlib.bases import StandardNormal
from flowlib.bijection import Compose, Inverse
from flowlib.flow import Flow
from flowlib.layers.dequantize import Dequantize, Logit
from flowlib.layers.multiscale import Flatten
from flowlib.models import MODELS

if TYPE_CHECKING:
    from flowlib.data import Dataset


#: what the constructors of ``MODELS`` take that is no size
NO_SIZES = ("event_shape", "context_features", "base")
_DEEP, _DEEPER = ({"layers": n, "scales": 3, "hidden": (width,)} for n, width in ((8, 32), (16, 128)))
_SLOW = {"ffjord": {"lr": 5e-3}, "tarflow": {"lr": 4e-3}}
_WIDE = {"layers": 5, "hidden": (1024, 1024)}
#: by what the data are: settings to start from, and for some models other sizes than the constructors', made
#: for the plane and 4 × 4 pixels, or a learning rate of their own
RECIPES: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "points": ({"steps": 2000, "batch_size": 256, "lr": 1e-3, "ema": None}, {}),
    "small images": (
        {"steps": 800, "batch_size": 64, "lr": 1e-3, "ema": 0.99},
        {"realnvp_multiscale": {"hidden": (32, 32)}, "glow": _DEEP, "wavelet": _DEEP, **_SLOW},
    ),
    "images": (
        {"steps": 20_000, "batch_size": 64, "lr": 1e-3, "ema": 0.999},
        {"realnvp_multiscale": {"scales": 3, "hidden": (64, 64, 64)}, "glow": _DEEPER, "wavelet": _DEEPER}
        | {"maf": _WIDE, "iaf": _WIDE},
    ),
}


def flow_for(data: Dataset, model: str = "glow", context_features: int = 0, **sizes: Any) -> Flow:
    r"""Build a row of ``MODELS`` for a data set.

    .. math::
        x = f(z) \text{ for points of the plane}, \qquad
        x = \lfloor L\, \sigma_{0.05}(f(z)) \rfloor \text{ for images of } L \text{ levels}

    Images get :class:`~flowlib.layers.dequantize.Logit` with α = 0.05, written :math:`\sigma_{0.05}`, and
    :class:`~flowlib.layers.dequantize.Dequantize` as outermost layers. So the flow takes the images as the
    data set has them, as floats, and its ``log_prob`` is a bound of the probability of the integers. A model
    that only takes vectors gets the pixels in a row, and the flow takes images all the same.

    Args:
        data: what :func:`flowlib.data.load_dataset` returns.
        model: a key of ``MODELS``.
        context_features: length of the vector that conditions each point; 0 for none.
        sizes: keywords of the model's constructor, such as ``layers`` and ``hidden``.

    Raises:
        ValueError: if there is no such model, it does not take one of the sizes, or it cannot act on
            points of this shape.

    Example:
        >>> from flowlib.data import load_dataset
        >>> digits = load_dataset("digits")
        >>> flow = flow_for(digits, "glow", layers=2, hidden=(16,))
        >>> flow.log_prob(digits.test[:5].float()).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 1, 8, 8]))
    """
    sizes_of(model, sizes)
    shape = tuple(data.train.shape[1:])
    build = partial(MODELS[model], context_features=context_features, **sizes)
    try:
        flow = build(event_shape=shape)
        stack, base = [flow.bijection], flow.base
    except ValueError as refused:
        try:
            flow = build(event_shape=math.prod(shape))
        except ValueError:
            raise refused from None
        stack, base = [Flatten(shape), flow.bijection, Inverse(Flatten(shape))], StandardNormal(shape)
    if data.levels is not None:
        stack += [Logit(0.05), Dequantize(data.levels)]
    elif base is flow.base:
        return flow
    if base.event_shape == shape:
        return Flow(stack, base, context_features)
    flow.bijection = Compose(stack)  # VFlow's latents have entries of their own: it stays one
    return flow


def sizes_of(model: str, given: Iterable[str] = ()) -> dict[str, Any]:
    """The keywords that size a row of ``MODELS``, with the values that its constructor gives them.

    Raises:
        ValueError: if there is no such model, or it does not take one of the names that are ``given``.

    Example:
        >>> sizes_of("planar")
        {'layers': 8}
    """
    if model not in MODELS:
        raise ValueError(f"There is no model {model!r}; choose one of {', '.join(MODELS)}.")
    keywords = inspect.signature(MODELS[model]).parameters.values()
    sizes = {one.name: one.default for one in keywords if one.name not in NO_SIZES}
    if wrong := [name for name in given if name not in sizes]:
        raise ValueError(f"{model} takes the sizes ({', '.join(sizes)}), and not {' and '.join(wrong)}.")
    return sizes


def recipe(model: str, data: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings to start from, for whom gives none: the sizes of the model, and the training's.

    An image that cannot be halved as often as the recipe has it gets fewer scales.

    Example:
        >>> from flowlib.data import load_dataset
        >>> recipe("planar", load_dataset("two_moons"))
        ({'layers': 8}, {'steps': 2000, 'batch_size': 256, 'lr': 0.001, 'ema': None})
    """
    point = data.train[0]
    kind = "points" if data.levels is None else "small images" if point.numel() <= 256 else "images"
    training, by_model = RECIPES[kind]
    sizes = {name: value for name, value in sizes_of(model).items() if name not in ("mix", "steps")}
    own = by_model.get(model, {})
    sizes |= {name: value for name, value in own.items() if name not in training}
    if "scales" in sizes and point.dim() == 3:
        side = math.gcd(*point.shape[1:])
        halvings = (side & -side).bit_length() - 1  # how often 2 divides it
        sizes["scales"] = max(1, min(sizes["scales"], halvings))
    return sizes, {name: own.get(name, value) for name, value in training.items()}
