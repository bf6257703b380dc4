"""Run a function in a process of its own, forked from one that has imported flowlib but done nothing yet."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
# an optimiser imports the compiler when it is first used, which takes three seconds
CONTEXT.set_forkserver_preload(["pytest", "flowlib", "torch._dynamo"])


def run(function: Callable[..., None], *arguments: Any) -> int | None:
    """Return the exit code: 0, or minus the number of the signal that ended the process."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def run_together(function: Callable[..., None], count: int, *arguments: Any) -> list[int | None]:
    """Run ``function(k, *arguments)`` in processes k = 0, …, count−1 at the same time."""
    processes = [CONTEXT.Process(target=function, args=(k, *arguments)) for k in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]
