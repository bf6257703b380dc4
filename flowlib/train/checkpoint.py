"""Checkpoints on disk: one file that is always whole, and the one before it."""

from __future__ import annotations

import io
import itertools
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from flowlib.flow import Flow
from flowlib.train.files import replacing

FORMAT, VERSION = "flowlib checkpoint", 1

PathLike = str | os.PathLike[str]


class CheckpointError(ValueError):
    """A file is not a checkpoint that this flow, or this training, can go on from."""


def previous(path: PathLike) -> Path:
    """Where the checkpoint before the last is kept: ``glow.pt`` has ``glow.previous.pt``."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: PathLike, content: dict[str, Any]) -> None:
    """Write a checkpoint so that a kill at any instant leaves a whole one at ``path`` or beside it.

    The new file is written beside ``path`` and brought to the disk; then the old one becomes the
    previous one, and the new one takes its name. What is at ``path`` and is not a whole checkpoint is
    never overwritten: it moves to a free name.

    Args:
        path: the file.
        content: tensors, numbers, strings, None, and lists and dictionaries of them.

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
    path, file = Path(path), io.BytesIO()
    # in memory first, for torch's writer to the disk does not say in words that the disk is full
    torch.save({"format": FORMAT, "version": VERSION, **content}, file)
    with replacing(path, file.getbuffer()):
        if path.exists():
            os.replace(path, previous(path) if _is_whole(path) else _free_name(path))


def load_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read the newest whole checkpoint: that at ``path``, else the previous one, with a warning.

    Only tensors and plain values are read, never code: a checkpoint from elsewhere can do no harm.
    Every byte is checked against its checksum.

    Raises:
        FileNotFoundError: if there is neither.
        CheckpointError: if the file is truncated, damaged, foreign or of a newer flowlib, and there is no
            whole previous one.
    """
    path, older = Path(path), previous(path)
    try:
        return _read(path)
    except (CheckpointError, FileNotFoundError) as error:
        if not older.exists():
            raise
        content = _read(older)
        warnings.warn(
            f"{error} The run goes on from the previous checkpoint, {older.name}, after step "
            f"{content.get('step')}.",
            stacklevel=2,
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
    content = load_checkpoint(path)
    check_model(flow, content, Path(path))
    flow.load_state_dict(content["best"] or content["average"] or content["flow"])
    return flow.eval()


def check_model(flow: Flow, content: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint whose parameters and buffers are not this flow's."""
    here = {name: _describe(value) for name, value in flow.state_dict().items()}
    there = {name: _describe(value) for name, value in content.get("flow", {}).items()}
    different = [
        f"{name} is {there.get(name, 'missing')} in the file and {here.get(name, 'missing')} in the flow"
        for name in here | there
        if here.get(name) != there.get(name)
    ]
    if different:
        more = f", and {len(different) - 1} more differ" if len(different) > 1 else ""
        raise CheckpointError(
            f"{path} is the checkpoint of another model: {different[0]}{more}. Build the flow as it was "
            "built then, or give another file."
        )


def _describe(value: torch.Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def _read(path: Path) -> dict[str, Any]:
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
            f"{path} was written by a newer flowlib: version {content.get('version')} of the format, and "
            f"this one reads version {VERSION}. Update flowlib to use it."
        )
    return content


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except CheckpointError:
        return False
    return True


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.stem}.set-aside-{k}{path.suffix}") for k in itertools.count(1))
    return next(name for name in names if not name.exists())


__all__ = ["CheckpointError", "load_checkpoint", "load_parameters", "save_checkpoint"]
