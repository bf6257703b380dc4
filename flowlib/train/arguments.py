"""The options of ``python -m flowlib.train``, and the help that explains them."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from flowlib.data import DATASETS, DENSITIES
from flowlib.models import MODELS
from flowlib.train.flow_for import sizes_of
from flowlib.train.recipes import MODEL_SIZES

DESCRIPTION = """\
Train a normalizing flow on a data set, by maximum likelihood.

All that comes of it lands in one folder: checkpoint.pt; history.csv, a line for each step; samples/,
pictures on the way; samples.png; and result.json, with the negative log-likelihood of the test points
in nats and, for images, in bits per dimension. Run the same command again after Ctrl-C, a crash or a
lost session: it goes on from its checkpoint and ends as if nothing had happened.
"""

EPILOG = """\
examples:
  the digits on a CPU, about a minute on two cores
    python -m flowlib.train --model glow --data digits --class-conditional --out runs/digits
  CIFAR-10 on one GPU, with a picture of samples every 1000 steps
    python -m flowlib.train --data cifar10 --bfloat16 --compile --samples-every 1000 --out runs/cifar10
  your own photographs, cut square and made 64 x 64
    python -m flowlib.train --data folder:photos --size 64 --out runs/photos
  the same batches, shared among four GPUs
    torchrun --nproc-per-node=4 -m flowlib.train --data cifar10 --batch-size 256 --out runs/cifar10

models, with the sizes they take:
{models}
  Of images, models of vectors take the pixels in a row.

data sets:
  points of the plane: {points}
  images: {images}
  folder:PATH: your own images; its sub-folders, if there are any, are the classes

exit status:
  0 finished, 1 failed, 2 an argument does not fit, 130 stopped by Ctrl-C
"""


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with a sentence, once for all processes of a run."""

    def error(self, message: str) -> NoReturn:
        if os.environ.get("RANK", "0") == "0":
            print(f"{message}\nAll options: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """The parser. An option that was not given is None where its default depends on the data."""
    top = Parser(
        prog="python -m flowlib.train",
        usage="%(prog)s [--model NAME] [--data NAME] [--out FOLDER] [options]",
        description=DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    add = top.add_argument_group("what to train on what").add_argument
    add("--model", metavar="NAME", default="glow", help="a model of the list below (default: glow)")
    add("--data", metavar="NAME", default="digits", help="a data set of the list below (default: digits)")
    text = "height and width of the images of patches and folder:PATH (default: 32)"
    add("--size", metavar="PIXELS", type=whole(1), default=32, help=text)
    text = "where downloaded data are kept (default: FLOWLIB_DATA, else the user's cache)"
    add("--root", metavar="FOLDER", help=text)
    text = "tell the flow each image's class, so that it can draw the class that is wanted"
    add("--class-conditional", action="store_true", help=text)
    text = "where all is written (default: runs/MODEL-DATA)"
    add("--out", metavar="FOLDER", type=Path, help=text)

    title = "sizes of the model (default: what suits the data; refused where the model does not have it)"
    add = top.add_argument_group(title).add_argument
    add("--layers", metavar="NUMBER", type=whole(1), help="layers, or flow steps on each scale")
    add("--scales", metavar="NUMBER", type=whole(1), help="scales of an image, each half the one before")
    text = "widths inside each conditioner, one number for each hidden layer or residual block"
    add("--hidden", metavar="WIDTH", type=whole(1), nargs="+", help=text)
    add("--bins", metavar="NUMBER", type=whole(1), help="pieces of each spline")
    add("--box", metavar="LENGTH", type=positive, help="splines act on [-LENGTH, LENGTH] in each dimension")
    add("--components", metavar="NUMBER", type=whole(1), help="logistics in each mixture of flowpp")
    add("--heads", metavar="NUMBER", type=whole(1), help="attentions side by side, in flowpp on images")
    add("--extra", metavar="NUMBER", type=whole(1), help="entries or channels that vflow adds")

    add = top.add_argument_group("training (default, where none is named: what suits the data)").add_argument
    add("--steps", metavar="NUMBER", type=whole(1), help="updates of the parameters")
    text = "points in one update, those of all processes together"
    add("--batch-size", metavar="NUMBER", type=whole(1), help=text)
    text = "compute a batch in so many pieces, one after another, to save memory (default: 1)"
    add("--accumulate", metavar="NUMBER", type=whole(1), default=1, help=text)
    text = "first learning rate of Adam, which a cosine brings to 0"
    add("--lr", metavar="RATE", type=positive, help=text)
    text = "use a moving average of the parameters with this decay, such as 0.999; 0 for none"
    add("--ema", metavar="DECAY", type=decay, help=text)
    add(
        "--seed",
        metavar="NUMBER",
        type=whole(0, 2**32 - 1),
        default=0,
        help="of all random numbers (default: 0)",
    )
    text = (
        "hold out a tenth of the training points, measure them this often, and keep the parameters that "
        "were best on them; 0 to train on all points (default: 20 times in the run)"
    )
    add("--validate-every", metavar="STEPS", type=whole(0), help=text)
    text = "stop after so many measurements without a new best one (default: never)"
    add("--patience", metavar="NUMBER", type=whole(1), help=text)

    add = top.add_argument_group("the machine").add_argument
    text = "cpu, cuda or cuda:1 (default: cuda if there is one, else cpu)"
    add("--device", metavar="NAME", help=text)
    text = "compute the networks in bfloat16, faster on a GPU; all else stays in float32"
    add("--bfloat16", action="store_true", help=text)
    text = "compile the flow first: minutes at the start, then faster steps"
    add("--compile", action="store_true", help=text)

    add = top.add_argument_group("what is written").add_argument
    text = "how often to write the checkpoint and history.csv (default: 100)"
    add("--checkpoint-every", metavar="STEPS", type=whole(1), default=100, help=text)
    text = (
        "how often to draw samples, always from the same latents; 0 for never (default: 10 times in the run)"
    )
    add("--samples-every", metavar="STEPS", type=whole(0), help=text)
    text = (
        "of samples.png: the latents' standard deviation; below 1 images are clearer and more alike "
        "(default: 0.7 for images, 1 for points)"
    )
    add("--temperature", metavar="NUMBER", type=positive, help=text)
    return top


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """A whole number within these bounds."""
    bounds = f"{least} or more" if most == math.inf else f"from {least} to {most}"

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"it must be a whole number, {bounds}, and came as {text!r}.")
        return int(text)

    return parse


def positive(text: str) -> float:
    """A positive number."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"it must be a positive number, such as 1e-3, and came as {text!r}.")
    return value


def decay(text: str) -> float:
    """A number from 0 to 1, without 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 0 and below 1, and came as {text!r}.")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _epilog() -> str:
    width = max(map(len, MODELS))
    sizes = {
        name: " ".join(f"--{size}" for size in sizes_of(name) if size in MODEL_SIZES) or "no sizes"
        for name in MODELS
    }
    points = [name for name in DATASETS if name.replace("_", "") in {key.lower() for key in DENSITIES}]
    return EPILOG.format(
        models="\n".join(f"  {name:<{width}}  {text}" for name, text in sizes.items()),
        points=", ".join(points),
        images=", ".join(name for name in DATASETS if name not in points),
    )


__all__ = ["parser"]
