"""What Linux says of running processes: who was started by whom, their memory, their time."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path


def below(pid: int) -> list[int]:
    """The processes below ``pid``, which itself only starts the sandbox."""
    children = defaultdict(list)
    for child in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if fields := _stat(child):
            children[int(fields[1])].append(child)
    found = [*children[pid]]
    for one in found:  # which grows meanwhile
        found += children[one]
    return found


def memory(pid: int, name: str) -> int:
    """Bytes: ``VmRSS`` in use, ``VmHWM`` the most so far, ``Pss`` with its share of what forks share."""
    file = "smaps_rollup" if name == "Pss" else "status"
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)


def seconds(pid: int) -> float:
    """What a process and those it waited for have used of the processor."""
    return sum(map(int, _stat(pid)[11:15])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold anything; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
