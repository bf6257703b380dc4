"""Train a normalizing flow on a data set, by maximum likelihood.

All that comes of it lands in one folder: checkpoint.pt; history.csv, a line for each step; samples/,
pictures on the way; samples.png; and result.json, with the negative log-likelihood of the test points
in nats and, for images, in bits per dimension. Run the same command again after Ctrl-C, a crash or a
lost session: it goes on from its checkpoint and ends as if nothing had happened.

examples:
  the digits on a CPU, about a minute on two cores
    python -m flowlib.train --model glow --data digits --class-conditional --out runs/digits
  CIFAR-10 on one GPU, with a picture of samples every 1000 steps
    python -m flowlib.train --data cifar10 --bfloat16 --compile --samples-every 1000 --out runs/cifar10
  your own photographs, cut square and made 64 x 64
    python -m flowlib.train --data folder:photos --size 64 --out runs/photos
  the same batches, shared among four GPUs
    torchrun --nproc-per-node=4 -m flowlib.train --data cifar10 --batch-size 256 --out runs/cifar10

exit status:
  0 finished, 1 failed, 2 an argument does not fit, 130 stopped by Ctrl-C
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.functional import one_hot

from flowlib.data import DATASETS, load_dataset
from flowlib.layers.dequantize import bits_per_dim
from flowlib.models import MODELS
from flowlib.train.checkpoint import load_checkpoint, replacing
from flowlib.train.flow_for import flow_for, recipe, sizes_of
from flowlib.train.loop import fit
from flowlib.train.report import mean_nats, picture

#: the keywords of the models that are options; ffjord's steps would be taken for those of the training
SIZES = {name: default for model in MODELS for name, default in sizes_of(model).items()}
SIZES = {name: default for name, default in SIZES.items() if name not in ("mix", "steps")}
#: arguments of fit that are no options, and options whose default here is another
NO_OPTIONS = {"given", "context", "validation", "validation_context", "clip", "progress"}
NO_OPTIONS |= {"checkpoint", "samples", "history"}
OTHERWISE = {
    **dict.fromkeys(("steps", "batch_size", "lr", *SIZES), "what suits the data"),
    "ema": "what suits the data; 0 for none",
    "device": "cuda if there is one",
    "validate_every": "20 looks at a tenth of the training points in the run; 0 for none",
    "samples_every": "10 pictures in the run; 0 for none",
}


def run(
    *,
    model: str = "glow",
    data: str = "digits",
    size: int = 32,
    root: str | None = None,
    class_conditional: bool = False,
    out: str | None = None,
    temperature: float | None = None,
    given: dict[str, Any],
) -> None:
    """Train one model on one data set, and write what comes of it.

    Args:
        model: a model of the list below.
        data: a data set of the list below.
        size: height and width of the images of patches and folder:PATH.
        root: where downloaded data are kept, else in FLOWLIB_DATA or the user's cache.
        class_conditional: tell the flow each image's class, so that it can draw the class that is wanted.
        out: the folder where all is written, else runs/MODEL-DATA.
        temperature: of samples.png, the latents' standard deviation, else 0.7 for images and 1 for points.
        given: the options of :func:`fit`, and the sizes of the model:
        layers: layers, or flow steps on each scale.
        scales: scales of an image, each half the one before.
        hidden: widths inside each conditioner, one for each hidden layer or residual block.
        bins: pieces of each spline.
        box: splines act on [-box, box] in each dimension.
        components: logistics in each mixture of flowpp.
        heads: attentions side by side, in tarflow and in flowpp on images.
        patch: side of the square patches of tarflow, in pixels.
        extra: entries or channels that vflow adds.
    """
    if temperature is not None and not temperature >= 0:
        raise ValueError(f"--temperature must be a number, 0 or more, and came as {temperature}.")
    chosen = {name: given.pop(name) for name in SIZES if name in given}
    sizes_of(model, chosen)
    dataset = load_dataset(data, root, size)
    sizes, training = recipe(model, dataset)
    sizes, training = sizes | chosen, training | given
    looks = training.get("validate_every", max(1, training["steps"] // 20))
    pictures = training.get("samples_every", max(1, training["steps"] // 10))
    training |= {"ema": training["ema"] or None, "validate_every": looks or 1, "samples_every": pictures or 1}
    dataset = dataset.hold_out(min(len(dataset.train) // 10, 5000) if looks else 0)
    classes = 0
    if class_conditional:
        if dataset.train_labels is None:
            raise ValueError(f"--class-conditional needs labels, and {data} has none; leave it out.")
        of_all = (dataset.train_labels, dataset.test_labels, dataset.validation_labels)
        classes = 1 + max(int(labels.max()) for labels in of_all if labels is not None)
    points, context = _tensors(dataset.train, dataset.train_labels, classes)
    held_out: Any = (None, None)
    if looks and dataset.validation is not None:
        held_out = _tensors(dataset.validation, dataset.validation_labels, classes)
    torch.manual_seed(training.get("seed", 0))
    flow = flow_for(dataset, model, classes, **sizes)

    folder = Path(out or f"runs/{model}-{data.replace(':', '-').replace(os.sep, '-')}")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    saved = load_checkpoint(checkpoint) if checkpoint.exists() else {"step": 0, "finished": False}
    count = sum(p.numel() for p in flow.parameters())
    _say(f"{model} on {data}: {count:,} parameters, {sizes or 'no sizes'}, on {training['device']}.")
    steps, size_of_batch = training["steps"], training["batch_size"]
    _say(f"{steps} steps of {size_of_batch} points, from step {saved['step']}, in {folder}.")
    history = fit(
        flow,
        points,
        context=context,
        validation=held_out[0],
        validation_context=held_out[1],
        checkpoint=checkpoint,
        samples=folder / "samples" if pictures else None,
        history=folder / "history.csv",
        **training,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    if saved["finished"]:
        _say("This run was finished before; to begin anew, give another --out.")
    if not _is_first():
        return
    test, test_context = _tensors(dataset.test, dataset.test_labels, classes)
    nats = mean_nats(flow, test, test_context)
    bits = None if dataset.levels is None else float(bits_per_dim(torch.tensor(-nats), flow.event_shape))
    result = {
        "model": model,
        "sizes": sizes,
        "data": data,
        "training": training | {"device": str(training["device"])},
        "steps_taken": len(history.loss),
        "seconds": history.seconds,
        "parameters": count,
        "torch": torch.__version__,
        "test_points": len(test),
        "test_nats": nats,
        "test_bits_per_dimension": bits,
        "log_prob_is_exact": flow.is_exact,
    }
    with replacing(folder / "result.json") as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())
    if temperature is None:
        temperature = 1.0 if bits is None else 0.7
    kinds = min(classes, 10) or 1
    columns = kinds * (10 // kinds)  # so that each is of one class
    rows = torch.eye(classes)[torch.arange(columns**2) % kinds] if classes else None
    title = f"samples at temperature {temperature:g}"
    picture(flow, folder / "samples.png", rows, title, temperature, columns)
    number = f"{nats:.3f} nats" if bits is None else f"{bits:.3f} bits per dimension"
    print(f"Negative log-likelihood of the {len(test)} test points: {number}. All is in {folder}.")
    if not (checkpoint.exists() and load_checkpoint(checkpoint)["finished"]):
        raise OSError("The last checkpoint could not be written: make room and run the same command again.")


def _tensors(values: Tensor, labels: Tensor | None, classes: int) -> tuple[Tensor, Tensor | None]:
    """The points as floats, and their classes as rows with a single one."""
    floats = torch.get_default_dtype()
    return values.to(floats), one_hot(labels, classes).to(floats) if labels is not None and classes else None


# --- the options --------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """An option for each argument of :func:`run` and of ``fit`` and for each size of a model."""
    description, examples = (__doc__ or "").split("examples:")
    models = [f"  {name}: {' '.join(size for size in sizes_of(name) if size in SIZES)}" for name in MODELS]
    top = argparse.ArgumentParser(
        prog="python -m flowlib.train",
        usage="%(prog)s [--model NAME] [--data NAME] [--out FOLDER] [options]",
        description=description,
        epilog="\n".join([f"examples:{examples}\nmodels, with the sizes they take:", *models])
        + f"\n\ndata sets:\n  {', '.join(DATASETS)}, folder:PATH",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # so that whoever takes the argument gives its default
        allow_abbrev=False,
    )
    forms: dict[str, Any] = {"bool": {"action": "store_true"}, "tuple": {"type": int, "nargs": "+"}}
    forms |= {"int": {"type": int}, "float": {"type": float}}
    said, several = _said(fit) | _said(run), (inspect.signature(run), inspect.signature(fit))
    options = [
        (one.name, str(one.annotation).removesuffix(" | None"), one.default)
        for signature in several
        for one in signature.parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.name not in NO_OPTIONS
    ]
    options += [(name, type(default).__name__, None) for name, default in SIZES.items()]
    for name, kind, default in options:
        words = f"{said[name]} (default: {OTHERWISE.get(name, default)})"
        top.add_argument(f"--{name.replace('_', '-')}", help=words, **forms.get(kind, {}))
    return top


def _said(function: Callable[..., Any]) -> dict[str, str]:
    """The first sentence about each argument in a docstring."""
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(function) or "", re.MULTILINE)
    return {
        name: re.split(r"[.;] ", " ".join(text.replace("`", "").split()))[0].rstrip(".")
        for name, text in entries
    }


# --- the surroundings ---------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; without ``arguments``, take those of the program."""
    given = vars(parser().parse_args(arguments))
    own = {name: given.pop(name) for name in inspect.signature(run).parameters if name in given}
    try:
        with warnings.catch_warnings(), _processes(given.get("device")) as device:
            warnings.formatwarning = lambda message, *where, **more: f"{message}\n"
            run(**own, given=given | {"device": device})
    except KeyboardInterrupt:
        return _say("Stopped. Run the same command again to go on from where it stands.", 130)
    except torch.cuda.OutOfMemoryError:
        return _say("The GPU's memory is full: give a smaller --batch-size, or --accumulate 2.", 1)
    except (ImportError, TypeError, ValueError, FileExistsError, NotADirectoryError) as error:
        return _say(str(error), 2)
    except (FloatingPointError, OSError) as error:
        return _say(str(error), 1)
    return 0


@contextmanager
def _processes(name: str | None) -> Iterator[torch.device]:
    """Find the device, and under torchrun join the other processes until the end."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = device if name is None else torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} does not work here: {error}") from None
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def _say(message: str, status: int = 0) -> int:
    """Say it once, though every process of a run comes by."""
    if _is_first():
        print(message, file=sys.stderr, flush=True)
    return status


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"
