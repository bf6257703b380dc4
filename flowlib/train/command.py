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
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed
from torch.nn.functional import one_hot

from flowlib.data import DATASETS, load_dataset
from flowlib.models import MODELS
from flowlib.train.checkpoint import CheckpointError, load_checkpoint
from flowlib.train.flow_for import flow_for, recipe, sizes_of
from flowlib.train.loop import fit
from flowlib.train.report import mean_nats, write_result

#: the keywords of the models that are options; ffjord's steps would be taken for those of the training
SIZES = {name: default for model in MODELS for name, default in sizes_of(model).items()}
SIZES = {name: default for name, default in SIZES.items() if name not in ("mix", "steps")}
#: the arguments of fit that are options, and those of them whose default here is another
OF_FIT = {
    name: argument
    for name, argument in inspect.signature(fit).parameters.items()
    if name.removesuffix("_context") not in ("flow", "data", "context", "validation", "clip", "progress")
    if name not in ("checkpoint", "samples", "history")
}
OTHERWISE = {
    **dict.fromkeys(("steps", "batch_size", "lr"), "what suits the data"),
    "ema": "0 for none",
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
        heads: attentions side by side, in flowpp on images.
        extra: entries or channels that vflow adds.
    """
    from flowlib import plots  # noqa: F401  # its sentence where matplotlib is missing, before the training

    chosen = {name: given.pop(name) for name in SIZES if name in given}
    sizes_of(model, chosen)
    dataset = load_dataset(data, root, size)
    sizes, training = recipe(model, dataset)
    sizes, training = sizes | chosen, training | given
    looks = training.get("validate_every", max(1, training["steps"] // 20))
    pictures = training.get("samples_every", max(1, training["steps"] // 10))
    training |= {"ema": training["ema"] or None, "validate_every": looks or 1, "samples_every": pictures or 1}
    classes, labels = 0, dataset.train_labels
    if class_conditional:
        if labels is None:
            raise ValueError(f"--class-conditional needs labels, and {data} has none; leave it out.")
        classes = int(labels.max()) + 1
    points, context = _tensors(dataset.train, labels, classes)
    held = min(len(points) // 10, 5000) if looks else 0
    if "patience" in given and not held:
        raise ValueError("--patience counts measurements of held-out points, and there are none to measure.")
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    held_out, rows = order[:held], order[held:].sort().values
    torch.manual_seed(training.get("seed", 0))
    flow = flow_for(dataset, model, classes, **sizes)

    folder = Path(out or f"runs/{model}-{data.replace(':', '-').replace(os.sep, '-')}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out must be a folder, and {str(folder)!r} is a file; give another name.")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    step, finished = _progress(checkpoint)
    start = f"from step {step} in {checkpoint}" if step else f"in {folder}"
    described = "".join(f"{name} {value}, " for name, value in sizes.items())
    _say(f"{model} on {data}: {described}{sum(p.numel() for p in flow.parameters()):,} parameters.")
    _say(f"{training['steps']} steps of {training['batch_size']} points on {training['device']}, {start}.")
    history = fit(
        flow,
        points[rows],
        context=None if context is None else context[rows],
        validation=points[held_out] if held else None,
        validation_context=None if context is None or not held else context[held_out],
        checkpoint=checkpoint,
        samples=folder / "samples" if pictures else None,
        history=folder / "history.csv",
        **training,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    if finished:
        _say("This run was finished before; to begin anew, give another --out.")
    if _is_first():
        test, test_context = _tensors(dataset.test, dataset.test_labels, classes)
        temperature = temperature or (1.0 if dataset.levels is None else 0.7)
        facts: dict[str, Any] = {
            "model": model,
            "sizes": sizes,
            "data": data,
            "training": training | {"device": None},
        }
        facts |= {"steps_taken": len(history.loss), "seconds": history.seconds, "test_points": len(test)}
        print(write_result(folder, flow, mean_nats(flow, test, test_context), temperature, facts))
        if not _progress(checkpoint)[1]:
            raise OSError(
                f"The last checkpoint could not be written to {folder}, so the last steps are lost. Make "
                "room there and run the same command again; it goes on from the checkpoint before."
            )


def _tensors(values: Tensor, labels: Tensor | None, classes: int) -> tuple[Tensor, Tensor | None]:
    """The points as floats, and their classes as rows with a single one."""
    floats = torch.get_default_dtype()
    return values.to(floats), one_hot(labels, classes).to(floats) if labels is not None and classes else None


def _progress(checkpoint: Path) -> tuple[int, bool]:
    """After which step the checkpoint stands, and whether that is the end."""
    if not checkpoint.exists():
        return 0, False
    content = load_checkpoint(checkpoint)
    return content["step"], content["finished"]


# --- the options --------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with a sentence, once for all processes of a run."""

    def error(self, message: str) -> NoReturn:
        _say(f"{message}\nAll options: {self.prog} --help")
        raise SystemExit(2)


def parser() -> Parser:
    """An option for each argument of :func:`run` and of ``fit`` and for each size of a model."""
    description, examples = (__doc__ or "").split("examples:")
    width = max(map(len, MODELS))
    models = [
        f"  {name:<{width}}  {' '.join(f'--{size}' for size in sizes_of(name) if size in SIZES)}"
        for name in MODELS
    ]
    lists = [
        "models, with the sizes they take:",
        *models,
        f"\ndata sets:\n  {', '.join(DATASETS)}, folder:PATH",
    ]
    top = Parser(
        prog="python -m flowlib.train",
        usage="%(prog)s [--model NAME] [--data NAME] [--out FOLDER] [options]",
        description=description,
        epilog="\n".join([f"examples:{examples}", *lists]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # so that whoever takes the argument gives its default
        allow_abbrev=False,
    )
    said, kinds = _said(fit) | _said(run), {"bool": bool, "int": int, "float": float}
    own = {name: one for name, one in inspect.signature(run).parameters.items() if name != "given"}
    for title, arguments in (("what to train on what", own), ("training", OF_FIT)):
        group = top.add_argument_group(title)
        for name, one in arguments.items():
            kind = kinds.get(one.annotation.removesuffix(" | None"), str)
            _add(group, name, kind, said[name], OTHERWISE.get(name, one.default))
    group = top.add_argument_group("sizes of the model (default: what suits the data)")
    for name, default in SIZES.items():
        _add(group, name, type(default), said[name], None)
    return top


def _add(group: Any, name: str, kind: type, said: str, default: Any) -> None:
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        group.add_argument(flag, action="store_true", help=said)
        return
    words = said if default is None else f"{said} (default: {default})"
    inside, several = (int, "+") if kind is tuple else (kind, None)
    group.add_argument(flag, metavar=inside.__name__.upper(), type=inside, nargs=several, help=words)


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
    try:
        with _plain_warnings(), _processes(given.get("device")) as device:
            own = {name: given.pop(name) for name in inspect.signature(run).parameters if name in given}
            run(**own, given=given | {"device": device})
    except KeyboardInterrupt:
        return _say("Stopped. Run the same command again to go on from where it stands.", 130)
    except CheckpointError as error:
        return _say(f"{error} On the command line: for a run of its own, give another --out.", 2)
    except (ImportError, TypeError, ValueError, FileNotFoundError, NotADirectoryError) as error:
        return _say(str(error), 2)
    except torch.cuda.OutOfMemoryError:
        return _say(
            "The GPU's memory is full: give a smaller --batch-size, or pieces of it: --accumulate 2.", 1
        )
    except (FloatingPointError, OSError) as error:
        return _say(str(error), 1)
    return 0


@contextmanager
def _processes(name: str | None) -> Iterator[torch.device]:
    """Find the device, and under torchrun join the other processes until the end."""
    device = _device(name)
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield device
        return
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if device.index is not None or local >= torch.cuda.device_count():
            raise ValueError(
                f"torchrun gives each process a GPU of its own: start at most {torch.cuda.device_count()} "
                "processes here (--nproc-per-node), and name no number in --device."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # what torch raises without the library, or without the GPU
        raise ValueError(f"There is no device {name!r} here; choose another, such as cpu.") from None
    return device


def _say(message: str, status: int = 0) -> int:
    """Say it once, though every process of a run comes by."""
    if _is_first():
        print(message, file=sys.stderr, flush=True)
    return status


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings as the sentences they are, without the line of code that they came from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, for those who write programs
        warnings.showwarning = lambda message, *where, **more: print(message, file=sys.stderr)
        yield


__all__ = ["main"]
