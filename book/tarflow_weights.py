"""Trains the small TarFlow of lecture 17's interactive figure: python book/tarflow_weights.py

Four blocks on the digits, told the class. Its weights, rounded to 16 bits with one scale for each tensor, are
written as a script, for a page opened from a file may read nothing else. The tests read the model from it.
"""

import base64
import json
from pathlib import Path

import torch
from torch.nn.functional import one_hot

from flowlib import MODELS, Dequantize, Flow, Logit, StandardNormal, fit
from flowlib.data import digits

SHAPE, LAYERS, WIDTH, HEADS, CLASSES = (1, 8, 8), 4, 24, 2, 10
TO = Path(__file__).parent / "_static" / "figures" / "tarflow_weights.js"


def model() -> Flow:
    """The flow of the figure, before the steps to pixels."""
    return MODELS["tarflow"](SHAPE, LAYERS, (WIDTH,), CLASSES, heads=HEADS)


def train() -> Flow:
    """Return the blocks, trained on dequantised digits."""
    torch.manual_seed(0)
    blocks = model()
    flow = Flow([*blocks.bijection, Logit(0.05), Dequantize(17)], StandardNormal(SHAPE), CLASSES)
    images, labels = digits("train")
    rows = one_hot(labels, CLASSES).float()
    fit(flow, images.float(), context=rows, steps=1200, batch_size=32, lr=8e-3, progress=False)
    return blocks


def text_of(blocks: Flow) -> str:
    """Names, shapes and scales of the tensors, and all their numbers in one string."""
    tensors, numbers = [], []
    for name, value in blocks.bijection.state_dict().items():
        scale = float(value.abs().max()) / 32767
        tensors.append([name.removeprefix("layers."), list(value.shape), scale])
        numbers.append((value / scale).round().to(torch.int16).flatten())
    packed = base64.b64encode(torch.cat(numbers).numpy().astype("<i2").tobytes()).decode()
    return (
        "/* Written by book/tarflow_weights.py: the small TarFlow of lecture 17's figure. */\n"
        f"flowFigures.tarflowWeights = {{\n  tensors: {json.dumps(tensors)},\n"
        f"  numbers: {json.dumps(packed)},\n}};\n"
    )


if __name__ == "__main__":
    TO.write_text(text_of(train()), encoding="utf-8")
