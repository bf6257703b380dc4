"""How much memory a piece of work needs: the peak above what was in use when it began."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


class Memory:
    """The peak of a process's memory, or of a GPU's, counted from the moment this is made.

    Linux lets a process begin its peak anew, which is done here. Elsewhere the peak is that of the
    process's whole life, so work that stays below what was reached before counts as nothing.

    Example:
        >>> memory = Memory(torch.device("cpu"))
        >>> numbers = torch.ones(25_000_000)
        >>> 99e6 < memory.peak() < 150e6
        True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()
        self.start = self._peak()

    def restart(self) -> None:
        """Let the peak begin anew at what is in use now; it is still counted above the start."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif (PROCESS / "clear_refs").exists():
            (PROCESS / "clear_refs").write_text("5")

    def peak(self) -> int:
        """Bytes above the start, at the most, since then or since the restart."""
        return self._peak() - self.start

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _process_peak()


def _process_peak() -> int:
    status = PROCESS / "status"
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines() if ":" in line)
        return 1024 * int(lines["VmHWM"].split()[0])
    import resource  # Windows has neither

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


__all__ = ["Memory"]
