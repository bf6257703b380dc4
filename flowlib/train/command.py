"""What ``python -m flowlib.train`` does, from its arguments to its exit status; ``--help`` explains them."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.nn.functional import one_hot

from flowlib.data import Dataset, load_dataset
from flowlib.train.arguments import parser
from flowlib.train.checkpoint import CheckpointError, load_checkpoint, previous
from flowlib.train.flow_for import check_sizes, flow_for
from flowlib.train.likelihood import fit
from flowlib.train.recipes import MODEL_SIZES, recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; without ``arguments``, take those of the program."""
    options = parser().parse_args(arguments)
    name = options.data.replace(":", "-").replace(os.sep, "-")
    options.out = options.out or Path("runs", f"{options.model}-{name}")
    try:
        with _plain_warnings(), _processes(options.device) as device:
            return _run(options, device)
    except KeyboardInterrupt:
        return _stopped(options.out)
    except CheckpointError as error:
        _say(f"{error} On the command line: for a run of its own, give another --out.")
        return 2
    except (ImportError, TypeError, ValueError, FileNotFoundError, NotADirectoryError) as error:
        _say(str(error))
        return 2
    except (FloatingPointError, OSError) as error:
        _say(str(error))
        return 1
    except torch.cuda.OutOfMemoryError:
        _say(
            "The GPU's memory is full: give a smaller --batch-size, or compute it in halves: --accumulate 2."
        )
        return 1


def _run(options: argparse.Namespace, device: torch.device) -> int:
    # here, so that the sentence about a missing matplotlib comes before the training, and from main
    from flowlib.train.result import result_in_words, write_result

    given = {name: value for name, value in vars(options).items() if value is not None}
    chosen = {name: given[name] for name in MODEL_SIZES if name in given}
    check_sizes(options.model, chosen)
    data = load_dataset(options.data, options.root, options.size)
    sizes, training = recipe(options.model, data)
    sizes.update(chosen)
    training.update({name: given[name] for name in training if name in given})
    steps = training["steps"]

    classes = _classes(data) if options.class_conditional else 0
    points, context = _tensors(data.train, data.train_labels, classes)
    validate_every = given.get("validate_every", max(1, steps // 20))
    held = min(len(points) // 10, 5000) if validate_every else 0
    if options.patience and not held:
        raise ValueError("--patience counts measurements of held-out points, and there are none to measure.")
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    held_out, rows = order[:held], order[held:].sort().values
    torch.manual_seed(options.seed)
    flow = flow_for(data, options.model, classes, **sizes)

    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out must be a folder, and {str(options.out)!r} is a file; give another name.")
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.pt"
    step, finished = _progress(checkpoint)
    if not finished:
        number = sum(parameter.numel() for parameter in flow.parameters())
        described = "".join(f"{name} {value}, " for name, value in sizes.items())
        _say(f"{options.model} on {options.data}: {described}{number:,} parameters.")
        start = f"from step {step} in {checkpoint}" if step else f"in {options.out}"
        _say(f"{steps} steps of {training['batch_size']} points on {device}, {start}.")
    samples_every = given.get("samples_every", max(1, steps // 10))
    history = fit(
        flow,
        points[rows],
        context=None if context is None else context[rows],
        steps=steps,
        batch_size=training["batch_size"],
        lr=training["lr"],
        ema=training["ema"] or None,
        seed=options.seed,
        device=device,
        validation=points[held_out] if held else None,
        validation_context=None if context is None or not held else context[held_out],
        validate_every=validate_every or 1,
        patience=options.patience,
        bfloat16=options.bfloat16,
        compile=options.compile,
        accumulate=options.accumulate,
        checkpoint=checkpoint,
        checkpoint_every=options.checkpoint_every,
        samples=options.out / "samples" if samples_every else None,
        samples_every=samples_every or 1,
        history=options.out / "history.csv",
    )
    if history.interrupted:
        return _stopped(options.out)
    if not _first():
        return 0
    settings = {"model": options.model, "sizes": sizes, "data": options.data, "training": training}
    test, test_context = _tensors(data.test, data.test_labels, classes)
    temperature = given.get("temperature", 1.0 if data.levels is None else 0.7)
    result = write_result(options.out, flow, test, test_context, history, temperature, settings)
    if finished:
        _say("This run was finished before; to begin anew, give another --out.")
    print(result_in_words(result, options.out))
    if not _progress(checkpoint)[1]:
        _say(
            f"The last checkpoint could not be written to {options.out}, so the last steps are lost. "
            "Make room there and run the same command again; it goes on from the checkpoint before."
        )
        return 1
    return 0


def _classes(data: Dataset) -> int:
    if data.train_labels is None:
        raise ValueError(f"--class-conditional needs labels, and {data.name} has none; leave it out.")
    return int(data.train_labels.max()) + 1


def _tensors(values: Tensor, labels: Tensor | None, classes: int) -> tuple[Tensor, Tensor | None]:
    """The points as floats, and their classes as rows with a single one."""
    floats = torch.get_default_dtype()
    context = None if labels is None or not classes else one_hot(labels, classes).to(floats)
    return values.to(floats), context


def _progress(checkpoint: Path) -> tuple[int, bool]:
    """After which step the checkpoint stands, and whether that is the end."""
    if not checkpoint.exists() and not previous(checkpoint).exists():
        return 0, False
    with warnings.catch_warnings(action="ignore"):  # fit says what is wrong with it
        content = load_checkpoint(checkpoint)
    return content["step"], content["finished"]


# --- the surroundings -----------------------------------------------------------------------


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


def _first() -> bool:
    """Whether this process is the one that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def _say(message: str) -> None:
    if _first():
        print(message, file=sys.stderr, flush=True)


def _stopped(folder: Path) -> int:
    _say(f"Stopped. Run the same command again to go on from what is in {folder}.")
    return 130


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings as the sentences they are, without the line of code that they came from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, for those who write programs
        warnings.showwarning = lambda message, *where, **more: _say(str(message))
        yield


__all__ = ["main"]
