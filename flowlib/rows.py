r"""What all rows of :data:`~flowlib.models.MODELS` share: a shape, a context, a base, and their checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

from torch.distributions import Distribution

from flowlib.bases import Base, StandardNormal, TorchBase
from flowlib.flow import Flow

MODELS: dict[str, Callable[..., Flow]] = {}
_KINDS = {1: "vectors, event_shape=(d,)", 3: "images, event_shape=(C, H, W)"}


def row(*dimensions: int, bases: type[Base] = Base) -> Callable[[Callable[..., Any]], Callable[..., Flow]]:
    """Make a row of :data:`MODELS` of a function that makes its layers, or the whole flow.

    The function is called with the shape of a point, the length of the context, and sizes of its own. The row
    takes ``event_shape``, these sizes, ``context_features``, ``base``, then those that are keywords alone.

    Args:
        dimensions: of a point's shape: 1 for vectors, 3 for images.
        bases: the class of bases that the model can have.
    """

    def decorate(make: Callable[..., Any]) -> Callable[..., Flow]:
        signature = _signature(make, (2,) if 1 in dimensions else (1, 4, 4))

        def build(*arguments: Any, **keywords: Any) -> Flow:
            given = signature.bind(*arguments, **keywords)
            given.apply_defaults()
            event_shape, features, base = (given.arguments.pop(name) for name in _SHARED)
            shape = _checked(make.__name__, event_shape, dimensions, features, given.arguments)
            made = make(shape, features, **given.arguments)
            flow = made if isinstance(made, Flow) else Flow(made, StandardNormal(shape), features)
            if base is not None:
                base = TorchBase(base) if isinstance(base, Distribution) else base
                _check_base(flow, base, bases)
                flow.base = base
            return flow

        MODELS[make.__name__] = update_wrapper(build, make)
        build.__signature__ = signature  # type: ignore[attr-defined]
        return build

    return decorate


_SHARED = {"event_shape": "int | Sequence[int]", "context_features": "int", "base": "Base | None"}


def _signature(make: Callable, event_shape: tuple[int, ...]) -> inspect.Signature:
    """The arguments of a row: those that all share, around the function's own."""
    own = list(inspect.signature(make).parameters.values())[2:]
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    first, *shared = (
        inspect.Parameter(name, either, default=default, annotation=kind)
        for (name, kind), default in zip(_SHARED.items(), (event_shape, 0, None), strict=True)
    )
    before = [one for one in own if one.kind is either]
    after = [one.replace(kind=either) for one in own if one.kind is not either]
    return inspect.Signature([first, *before, *shared, *after], return_annotation="Flow")


def _checked(
    name: str, event_shape: Any, dimensions: Sequence[int], features: Any, sizes: dict[str, Any]
) -> tuple[int, ...]:
    """The shape as a tuple of the right length, beside counts that are positive."""
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"event_shape must hold positive whole numbers, such as (2,), and came as {shape}.")
    if len(shape) not in dimensions:
        takes = ", or ".join(_KINDS[n] for n in dimensions)
        raise ValueError(f"{name} takes {takes}, and event_shape came as {shape}.")
    if not isinstance(features, int) or features < 0:
        raise ValueError(f"context_features must be a whole number, 0 or more, and came as {features!r}.")
    for count in {"layers", "scales"} & sizes.keys():
        if not isinstance(sizes[count], int) or sizes[count] < 1:
            raise ValueError(f"{count} must be a whole number, 1 or more, and came as {sizes[count]!r}.")
    return shape


def _check_base(flow: Flow, base: Base, bases: type[Base]) -> None:
    if tuple(base.event_shape) != tuple(flow.base.event_shape):
        raise ValueError(
            f"base has event_shape {tuple(base.event_shape)} and the flow {tuple(flow.base.event_shape)}; "
            "give both the same."
        )
    if not isinstance(base, bases):
        raise ValueError(
            f"{type(flow).__name__} needs a base of the class {bases.__name__}, and base came as "
            f"{type(base).__name__}; leave it out."
        )


__all__ = ["MODELS", "row"]
