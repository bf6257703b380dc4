"""Checkpoints on disk: one file that is always whole, and that knows which model and which run it is of."""

from __future__ import annotations

import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from flowlib.flow import Flow

FORMAT, VERSION = "flowlib checkpoint", 3
_CACHES = ("_validate_args", "_inv", "_cached_x_y")  # of a distribution, which say nothing of what it is

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
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
        content = torch.load(path, map_location="cpu", weights_only=True)
        ours = whole and content["format"] == FORMAT
    except OSError:
        raise
    except Exception:  # a foreign or damaged file fails in many ways
        ours = False
    if not ours:
        raise CheckpointError(f"{path} is no checkpoint of flowlib, or it is damaged.")
    if content["version"] != VERSION:
        raise CheckpointError(f"{path} is of another version of flowlib; use that one, or begin a new run.")
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
    for what, here in {"model": describe(flow), "setting": settings}.items():
        there = content.get("model" if what == "model" else "settings", {})
        if here is None or here == there:
            continue
        different = [
            f"{name} was {there.get(name, 'missing')} and is {here.get(name, 'missing')}"
            for name in here | there
            if there.get(name, "missing") != here.get(name, "missing")
        ]
        raise CheckpointError(
            f"{path} was written with another {what}: {'; '.join(different[:3])}. Go on with the same, "
            "or give another file (for the command, another --out) to begin anew."
        )
    return content


def describe(module: nn.Module) -> dict[str, str]:
    """All that decides what a module computes but its parameters' values, each part under its name.

    Of every module inside it the class and the public attributes, such as the ``box`` of a spline, which no
    tensor's shape shows; of every parameter and buffer the dtype and shape. An attribute that is no
    configuration, such as a counter, has a name that begins with an underscore.

    Example:
        >>> from flowlib import UniformBox
        >>> describe(UniformBox(2, -1.0, 1.0))["itself"]
        'UniformBox(event_shape=(2), low=-1.0, high=1.0)'
    """
    module = getattr(module, "checkpointed", module)
    found = {name or "itself": _settings(inner, depth=3) for name, inner in module.named_modules()}
    kept = module.state_dict()
    found |= {name: f"{tensor.dtype} of shape {tuple(tensor.shape)}" for name, tensor in kept.items()}
    return found | {name: fingerprint(tensor) for name, tensor in module.named_buffers() if name not in kept}


def fingerprint(value: Any, depth: int = 3) -> str:
    """A short text that differs when the value does: of tensors a checksum, of objects their attributes."""
    if isinstance(value, Tensor):
        numbers = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{value.dtype} of shape {tuple(value.shape)} with checksum {zlib.crc32(numbers.data):08x}"
    if isinstance(value, nn.Module):  # a flow that is sampled
        known = repr(describe(value)) + fingerprint(tuple(value.state_dict().values()))
        return f"{type(value).__qualname__} with checksum {zlib.crc32(known.encode()):08x}"
    if isinstance(value, np.ndarray):
        return fingerprint(torch.from_numpy(value) if value.dtype.kind in "biuf" else value.tolist())
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, (tuple, list)):
        return f"({', '.join(fingerprint(one, depth) for one in value)})"
    if isinstance(value, (Distribution, Transform)):  # its parts are its own, whatever their names
        kept = (name for name in vars(value) if name not in _CACHES and not hasattr(type(value), name))
        return type(value).__qualname__ + fingerprint([(name, vars(value)[name]) for name in kept])
    return str(value) if value is None or isinstance(value, (int, float, str)) else _settings(value, depth)


def _settings(owner: Any, depth: int) -> str:
    """An object as its class and its attributes, without those that only say how it is computed just now."""
    own = {
        name: fingerprint(value, depth - 1)
        for name, value in (getattr(owner, "__dict__", {}) if depth else {}).items()
        if not (name.startswith("_") or name in ("training", "autocast_dtype"))
        if not isinstance(getattr(type(owner), name, None), cached_property)
    }
    described = ", ".join(f"{name}={value}" for name, value in own.items())
    return f"{getattr(owner, '__qualname__', type(owner).__qualname__)}({described})"


# --- files ------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside ``path``, which takes its place once it is whole and safe on the disk."""
    path = path.resolve()  # a link stays one, and what it leads to is replaced
    beside = path.with_name(path.name + ".partial")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def alone(**files: PathLike | None) -> Iterator[None]:
    """Hold a lock on the files while a run writes them; it ends with the process, however that ends.

    A folder that is missing is not made: it might be a drive that is not mounted yet.
    """
    with ExitStack() as locks:
        for name, path in files.items():
            if path is None:
                continue
            if Path(path).exists() and not Path(path).is_file():
                raise ValueError(f"{name} must be a file, and {str(path)!r} is a folder or a device.")
            if name == "history" and Path(path).exists() and not _starts_as_history(Path(path)):
                raise ValueError(f"history={str(path)!r} would overwrite a file that fit did not write.")
            lock = locks.enter_context(open(f"{Path(path).resolve()}.lock", "w"))
            try:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.stat(lock.name), os.fstat(lock.fileno())):
                    raise BlockingIOError("a run that ended has removed this one; another may hold the next")
            except (BlockingIOError, FileNotFoundError):
                raise CheckpointError(f"{path} is being written already: give another file.") from None
            except (ImportError, OSError):  # a system or a drive without locks
                pass
            locks.callback(Path(lock.name).unlink, missing_ok=True)
        yield


@contextmanager
def softly(step: int) -> Iterator[None]:
    """Turn what cannot be written into a warning: the training is worth more."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        message = f"After step {step} not all could be written: {error}. What was there before stays."
        warnings.warn(message, stacklevel=4)


def _starts_as_history(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.readline().startswith(b"step,loss,")
