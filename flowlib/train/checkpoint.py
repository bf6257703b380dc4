"""Checkpoints on disk: one file that is always whole, and that knows which model and which run it is of."""

from __future__ import annotations

import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from flowlib.flow import Flow

FORMAT, VERSION = "flowlib checkpoint", 2

PathLike = str | os.PathLike[str]


class CheckpointError(ValueError):
    """A file is not a checkpoint that this flow, or this training, can go on from."""


def save_checkpoint(path: PathLike, content: dict[str, Any]) -> None:
    """Write a checkpoint so that a kill at any instant leaves a whole one at ``path``: the old or the new.

    Args:
        path: the file; what is there is replaced.
        content: tensors, numbers, strings, None, and lists, tuples and dictionaries of them.

    Raises:
        OSError: if the disk is full or the folder may not be written to. The last checkpoint stays.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> save_checkpoint(Path(folder.name) / "a.pt", {"step": 3})
        >>> load_checkpoint(Path(folder.name) / "a.pt")["step"]
        3
        >>> folder.cleanup()
    """
    try:
        with replacing(Path(path)) as file:
            torch.save({"format": FORMAT, "version": VERSION, **content}, file)
    except RuntimeError as error:  # torch's writer hides what the disk said
        raise OSError(str(error.__context__ or error)) from None


def load_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read a checkpoint.

    Only tensors and plain values are read, never code: a checkpoint from elsewhere can do no harm.
    Every byte is checked against its checksum.

    Raises:
        FileNotFoundError: if there is none.
        CheckpointError: if the file is truncated, damaged, foreign or of another version of flowlib.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # a damaged directory of the archive fails in many ways
        raise CheckpointError(f"{path} is no checkpoint of flowlib, or it is truncated: {error}.") from None
    if damaged:
        raise CheckpointError(f"{path} is damaged: the checksum of {damaged} in it is wrong.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # what torch raises for another program's archive is not for readers
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by flowlib.")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} was written by another version of flowlib: version {content.get('version')} of the "
            f"format, and this one reads version {VERSION}. Use the flowlib of then, or begin a new run."
        )
    return content


def load_parameters(flow: Flow, path: PathLike) -> Flow:
    """Give a flow the parameters from a checkpoint, as the training would leave them, to use or refine it.

    They are those of the best validation if there was one, else the moving average if there is one, else
    the last. The flow comes back in eval mode; build it as for the training.

    Raises:
        FileNotFoundError, CheckpointError: as :func:`load_checkpoint`, and if the checkpoint is another
            model's.
    """
    content = load_for(flow, path)
    flow.load_state_dict(content["best"] or content["average"] or content["flow"])
    return flow.eval()


# --- whose checkpoint it is -------------------------------------------------------------------


def load_for(flow: Flow, path: PathLike, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """The checkpoint there; refuse that of another model, and of a run with other settings."""
    content = load_checkpoint(path)
    if different := _differences(content.get("model", {}), describe(flow)):
        more = f", and {len(different) - 1} more differ" if len(different) > 1 else ""
        raise CheckpointError(
            f"{path} is the checkpoint of another model: {different[0]}{more}. Build the flow as it was "
            "built then, or give another file."
        )
    if settings is not None and (different := _differences(content["settings"], settings)):
        raise CheckpointError(
            f"{path} belongs to another run: {'; '.join(different)}. To go on with it, call fit as then. To "
            "begin anew, give another file, or delete this one. To begin with what it learned, call "
            "load_parameters(flow, file) first and give fit another file."
        )
    return content


def describe(flow: nn.Module) -> dict[str, Any]:
    """All that decides what a flow computes but its parameters' values, each under its name.

    For every module its class and its public attributes, such as the ``box`` of a spline, which no tensor's
    shape shows; for every parameter and buffer its dtype and shape. An attribute that is no configuration,
    such as a counter, has a name that begins with an underscore.

    Example:
        >>> from flowlib import UniformBox
        >>> describe(UniformBox(2, -1.0, 1.0))["high"]
        1.0
    """
    found: dict[str, Any] = {}
    for name, module in flow.named_modules():
        found[name or "the flow"] = type(module).__qualname__
        found |= {f"{name}.{key}".lstrip("."): _plain(value) for key, value in _public(module)}
    kept = flow.state_dict()
    found |= {name: f"{_name(value.dtype)} of shape {tuple(value.shape)}" for name, value in kept.items()}
    return found | {name: fingerprint(value) for name, value in flow.named_buffers() if name not in kept}


def fingerprint(data: Any, context: Tensor | None = None) -> str:
    """A short text that differs when the data do: shape, dtype, checksum, or a sampler and its settings."""
    if isinstance(data, Tensor):
        both = [data] if context is None else [data, context]
        return f"{tuple(data.shape)} {_name(data.dtype)} with checksum {_checksum(both)}"
    if isinstance(data, nn.Module):  # a flow that is sampled
        settings = torch.frombuffer(bytearray(repr(describe(data)), "utf-8"), dtype=torch.uint8)
        checksum = _checksum([settings, *data.state_dict().values()])
        return f"draws from {type(data).__qualname__} with checksum {checksum}"
    return f"draws from {_plain(data)}"


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return [
        f"{name} was {there.get(name, 'missing')} and is {here.get(name, 'missing')}"
        for name in here | there
        if here.get(name, "missing") != there.get(name, "missing")
    ]


def _public(owner: Any) -> list[tuple[str, Any]]:
    """The attributes that are its own, without those that only say how it is computed just now."""
    return [
        (name, value)
        for name, value in getattr(owner, "__dict__", {}).items()
        if not (name.startswith("_") or name in ("training", "autocast_dtype") or value is None)
        if not isinstance(getattr(type(owner), name, None), cached_property)
    ]


def _plain(value: Any, depth: int = 3) -> Any:
    """A value as numbers, text and tuples of them."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return fingerprint(value)
    if isinstance(value, (tuple, list)):
        return tuple(_plain(one, depth) for one in value)
    settings = [f"{name}={_plain(one, depth - 1)}" for name, one in _public(value)] if depth else []
    return f"{getattr(value, '__qualname__', type(value).__qualname__)}({', '.join(settings)})"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _checksum(tensors: list[Tensor]) -> str:
    checksum = 0
    for tensor in tensors:
        numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(numbers.data, checksum)
    return f"{checksum:08x}"


# --- files ------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside ``path``, which takes its place once it is whole and safe on the disk."""
    beside = path.with_name(path.name + ".partial")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        with suppress(OSError):  # the new name too, where folders can be brought to the disk: not on Drive
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        beside.unlink(missing_ok=True)


def files(checkpoint: PathLike | None, history: PathLike | None) -> list[Path]:
    """The files of a run; refuse early what could not be written later, or would be lost.

    A folder that is missing is not made: it might be a drive that is not mounted yet.
    """
    named = {"checkpoint": checkpoint, "history": history}
    found = {name: Path(path) for name, path in named.items() if path is not None}
    for name, file in found.items():
        if file.exists() and not file.is_file():
            raise ValueError(f"{name} must be a file, and {str(file)!r} is a folder or a device.")
        if not file.parent.is_dir():
            raise ValueError(
                f"{name}={str(file)!r} lies in a folder that does not exist; make it first, or mount the "
                "drive that should hold it."
            )
    if len({file.resolve() for file in found.values()}) < len(found):
        raise ValueError(f"checkpoint and history are both {str(checkpoint)!r}; give each a file of its own.")
    if history is not None and found["history"].exists() and not _is_history(found["history"]):
        raise ValueError(
            f"history={str(history)!r} is a file that fit did not write, and it would be overwritten; give "
            "another name."
        )
    return list(found.values())


@contextmanager
def alone(files: list[Path]) -> Iterator[None]:
    """Hold a lock on the files while a run writes them; it ends with the process, however that ends."""
    with ExitStack() as locks:
        for path in files:
            lock = path.with_name(path.name + ".lock")
            try:
                import fcntl

                file = locks.enter_context(open(lock, "w"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CheckpointError(
                    f"Another run is writing {path} at this moment: wait for its end, or give another file."
                ) from None
            except (ImportError, OSError):  # a system or a drive without locks
                continue
            locks.callback(lock.unlink, missing_ok=True)
        yield


@contextmanager
def failing_softly(path: PathLike, step: int, finished: bool) -> Iterator[None]:
    """Turn a file that cannot be written into a warning: the training is worth more."""
    try:
        yield
    except OSError as error:
        then = "The training goes on, and will try again."
        if finished:
            then = "The training is over: make room and call fit again, which repeats what came after that."
        warnings.warn(
            f"{path} could not be written after step {step} ({error}); what was there stays. {then}",
            stacklevel=4,
        )


def _is_history(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.readline().startswith(b"step,loss,")


__all__ = ["CheckpointError", "load_checkpoint", "load_parameters", "save_checkpoint"]
