"""A Glow's layers and numbers as a small script that a page of the book can load from disk.

Every tensor becomes whole numbers from -127 to 127 times a power of two, with which JavaScript and torch
compute the same. A page that was opened from a folder may not fetch its neighbours: so the numbers lie in a
script.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import torch
from torch import Tensor

from flowlib import Bijection, Compose, Flow

LARGEST = 127
OPENING = "flowFigures.glowWeights = "
ATTRIBUTES = ("channels", "bound", "alpha")  # what a layer is, besides its tensors and the layers in it
LEFT_OUT = ("mask", "started")  # buffers that follow from the rest


def pack(tensor: Tensor) -> dict[str, Any]:
    """A tensor's shape, its unit as a power of two, and its whole numbers as bytes in base64.

    What was packed once stays as it is: its largest entry is more than 63 units, so its unit comes out again.

    Example:
        >>> pack(torch.tensor([1.0, -0.26]))
        {'shape': [2], 'power': -6, 'numbers': 'QO8='}
        >>> unpack(pack(torch.tensor([1.0, -0.26])))
        tensor([ 1.0000, -0.2656])
    """
    largest = tensor.abs().max().item()
    power = math.ceil(math.log2(largest / LARGEST)) if largest else 0
    whole = (tensor.detach().cpu() / 2.0**power).round().to(torch.int8)
    numbers = base64.b64encode(whole.numpy().tobytes()).decode()
    return {"shape": list(tensor.shape), "power": power, "numbers": numbers}


def unpack(packed: dict[str, Any]) -> Tensor:
    """The tensor that was packed, rounded."""
    whole = torch.frombuffer(bytearray(base64.b64decode(packed["numbers"])), dtype=torch.int8)
    return whole.view(packed["shape"]) * 2.0 ** packed["power"]


def describe(layer: Bijection) -> dict[str, Any]:
    """A layer for the page: its kind and attributes, and its tensors or the layers in it."""
    found: dict[str, Any] = {"kind": type(layer).__name__}
    found |= {name: getattr(layer, name) for name in ATTRIBUTES if hasattr(layer, name)}
    if inner := _inner(layer):
        return {**found, "layers": [describe(one) for one in inner]}
    return {**found, "tensors": {name: pack(tensor) for name, tensor in _tensors(layer).items()}}


@torch.no_grad()
def fill(layer: Bijection, described: dict[str, Any]) -> None:
    """Give a layer, and those in it, the tensors of its description."""
    if inner := _inner(layer):
        for one, its in zip(inner, described["layers"], strict=True):
            fill(one, its)
    else:
        for name, tensor in _tensors(layer).items():
            tensor.copy_(unpack(described["tensors"][name]))


def _inner(layer: Bijection) -> list[Bijection]:
    """The layers in a layer, in generative order."""
    if isinstance(layer, Compose):
        return list(layer)
    inner = getattr(layer, "bijection", None)
    return _inner(inner) or [inner] if inner else []


def _tensors(layer: Bijection) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in layer.state_dict().items() if name not in LEFT_OUT}


def before_dequantisation(flow: Flow) -> Compose:
    """All layers of the flow but the last, whose noise the page draws itself."""
    return Compose(list(flow.bijection)[:-1])


def script(flow: Flow, facts: dict[str, Any]) -> str:
    """The script for a flow that ends in a dequantisation, with facts that the page shows."""
    content = {
        "shape": list(flow.event_shape),
        "levels": list(flow.bijection)[-1].levels,
        "classes": flow.context_features,
        "facts": facts,
        **describe(before_dequantisation(flow)),
    }
    return f"/* Made by {facts['command']} */\n{OPENING}{json.dumps(content, separators=(',', ':'))};\n"


def read(text: str) -> dict[str, Any]:
    """What a script holds."""
    return json.loads(text.partition(OPENING)[2].rstrip(";\n"))


__all__ = ["before_dequantisation", "describe", "fill", "pack", "read", "script", "unpack"]
