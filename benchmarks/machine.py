"""What the results were measured on, so that a reader can judge them."""

from __future__ import annotations

import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.models import LIBRARIES


def describe() -> dict[str, object]:
    """Processor, threads, date, and the versions of Python, torch and every library that is installed.

    Example:
        >>> sorted(describe())
        ['date', 'processor', 'python', 'threads', 'torch', 'versions']
    """
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": {library: found for library in LIBRARIES if (found := _version(library))},
    }


def _processor() -> str:
    """The processor's name; Linux hides it from :mod:`platform`."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


__all__ = ["describe"]
