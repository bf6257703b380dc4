r"""A flow for a data set: a row of MODELS, with the steps between whole-number pixels and the real line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from flowlib.bases import StandardNormal
from flowlib.bijection import Bijection, Compose, Inverse
from flowlib.flow import Flow
from flowlib.layers.dequantize import Dequantize, Logit
from flowlib.models import MODELS

if TYPE_CHECKING:
    from flowlib.data import Dataset


class Flatten(Bijection):
    r"""An image's pixels in one row, so that models of vectors take images.

    .. math::
        x_{(cH + i)W + j} = z_{c,\, i,\, j}, \qquad \log|\det| = 0 \text{ both ways}

    Shapes: ``forward`` maps ``(B, *event_shape)`` to ``(B, d)``, ``inverse`` back; log-dets ``(B,)``.

    Args:
        event_shape: the shape of one image.

    Example:
        >>> import torch
        >>> Flatten((1, 2, 2))(torch.arange(4.0).reshape(1, 1, 2, 2))[0]
        tensor([[0., 1., 2., 3.]])
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.flatten(1), z.new_zeros(len(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.unflatten(1, self.event_shape), x.new_zeros(len(x))


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
    check_sizes(model, sizes)
    shape = tuple(data.train.shape[1:])
    build = partial(MODELS[model], context_features=context_features, **sizes)
    try:
        flow = build(event_shape=shape)
    except ValueError as refused:
        try:
            flat = build(event_shape=math.prod(shape))
        except ValueError:
            raise refused from None
        stack = [Flatten(shape), *_layers(flat), Inverse(Flatten(shape))]
        flow = Flow(Compose(stack), StandardNormal(shape), context_features)
    if data.levels is None:
        return flow
    if flow.base.event_shape != flow.event_shape:  # VFlow's latents have entries of their own: it stays one
        flow.bijection = Compose([*_layers(flow), Logit(0.05), Dequantize(data.levels)])
        return flow
    return Flow(Compose([*_layers(flow), Logit(0.05), Dequantize(data.levels)]), flow.base, context_features)


def sizes_of(model: str) -> dict[str, Any]:
    """The keywords that size a row of ``MODELS``, with the values that its constructor gives them.

    Raises:
        ValueError: if there is no such model.

    Example:
        >>> sizes_of("planar")
        {'layers': 8}
    """
    if model not in MODELS:
        raise ValueError(f"There is no model {model!r}; choose one of {', '.join(MODELS)}.")
    keywords = inspect.signature(MODELS[model]).parameters.values()
    others = ("event_shape", "context_features", "base")
    return {keyword.name: keyword.default for keyword in keywords if keyword.name not in others}


def check_sizes(model: str, sizes: Iterable[str]) -> None:
    """Refuse sizes that the model's constructor does not take.

    Raises:
        ValueError: if there is one, or there is no such model.
    """
    taken = sizes_of(model)
    wrong = [name for name in sizes if name not in taken]
    if wrong:
        raise ValueError(
            f"{model} does not take {' and '.join(wrong)}; its sizes are {', '.join(taken) or 'none at all'}."
        )


def _layers(flow: Flow) -> list[Bijection]:
    return list(flow.bijection) if isinstance(flow.bijection, Compose) else [flow.bijection]


__all__ = ["Flatten", "check_sizes", "flow_for", "sizes_of"]
