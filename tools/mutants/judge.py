"""Runs a lecture once and, before each statement, its mutants: each in a fork of its own, with the checks."""

from __future__ import annotations

import ast
import json
import os
import random
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from tools.mutants.change import Mutant, mutants
from tools.mutants.program import Step, needed, steps, targets
from tools.notebooks import KERNEL_ENVIRONMENT

# one thread, above all: a fork has no other threads than its own, and would wait for them
ENVIRONMENT = KERNEL_ENVIRONMENT | {"MPLBACKEND": "Agg"}
SECONDS_PER_MUTANT = 60  # of the processor: what takes longer is dead
BYTES_PER_MUTANT = 6 << 30  # a wrong loop may pile up what it computes until the machine has no memory left
SECONDS_OF_CHECKS = 10  # what the checks of one mutant may take; at least one of them is run


@dataclass
class Verdicts:
    """What became of a lecture's mutants."""

    possible: int = 0
    run: int = 0
    killed: int = 0
    timed_out: int = 0
    survivors: list[dict[str, Any]] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)


def judge(path: Path, at_most: int | None = None, seed: int = 0, seconds: float | None = None) -> Verdicts:
    """Run a lecture's mutants, or a sample of them.

    After ``seconds`` of the processor no further statement is begun, and statements that rest on training,
    which would take them all, are left out.
    """
    program = steps(nbformat.read(path, as_version=4))
    judged = [k for k, step in enumerate(program) if step.mutable and targets(program, k)]
    plan = [(k, wrong) for k in judged for wrong in mutants(program[k].node)]
    verdicts = Verdicts(possible=len(plan))
    random.Random(seed).shuffle(plan)  # a small sample is the beginning of a large one
    if seconds is not None:
        quick = {k for k in judged if not _trains(program, k)}
        plan = [(k, wrong) for k, wrong in plan if k in quick]
    chosen: dict[int, list[Mutant]] = {}
    for k, wrong in plan[:at_most]:
        chosen.setdefault(k, []).append(wrong)
    prefix = set(needed(program, [j for k in chosen for j in [k, *targets(program, k)]]))
    last = max(chosen, default=-1)
    until = sum(os.times()[:4]) + (seconds or float("inf"))
    names: dict[str, Any] = {"__name__": "__main__"}
    os.chdir(path.parent)
    for k, step in enumerate(program[: last + 1]):
        if k in chosen and sum(os.times()[:4]) < until:
            _judge_step(program, k, chosen[k], names, verdicts)
        if k in prefix:
            _prepare(step, names)
    return verdicts


def _prepare(step: Step, names: dict[str, Any]) -> None:
    """Run a statement for those after it; a check that fails here fails in the forks, and is not judged."""
    try:
        _execute(step.node, names)
    except Exception:
        if not step.tag:
            raise


def _trains(program: list[Step], k: int) -> bool:
    return any(program[j].trains for j in needed(program, [k, *targets(program, k)]))


def _judge_step(
    program: list[Step], k: int, wrong: list[Mutant], names: dict[str, Any], verdicts: Verdicts
) -> None:
    aims = targets(program, k)
    after = [j for j in needed(program, [k, *aims]) if j > k]
    times = _control(program, [k, *after], names)
    fast = [j for j in aims if j in times and (j == aims[0] or times[j] <= SECONDS_OF_CHECKS)]
    if not fast:
        verdicts.unjudged.append(f"cell {program[k].cell}: {ast.unparse(program[k].node)[:60]}")
        return
    after = [j for j in needed(program, [k, *fast]) if j > k]
    for mutant in wrong:
        nodes = [mutant.statement, *(program[j].node for j in after)]
        run = partial(_execute_all, nodes, names)
        end = forked(run, SECONDS_PER_MUTANT)[0]
        verdicts.run += 1
        verdicts.killed += end != 0
        verdicts.timed_out += end in (-signal.SIGXCPU, -signal.SIGKILL)
        if end == 0:
            place = {"cell": program[k].cell, "line": mutant.line, "tag": program[fast[0]].tag}
            verdicts.survivors.append({**place, "change": mutant.change})


def _control(program: list[Step], run: list[int], names: dict[str, Any]) -> dict[int, float]:
    """Run the statements as they are; return when each check that held was reached, in processor seconds."""

    def body(say: Callable[[object], None]) -> None:
        started = time.process_time()  # others may work here, too
        for j in run:
            _execute(program[j].node, names)
            if program[j].tag:
                say([j, time.process_time() - started])

    return dict(forked(body, SECONDS_PER_MUTANT)[1])


def forked(body: Callable[[Callable[[object], None]], Any], seconds: int | None) -> tuple[int, list[Any]]:
    """Run a function in a fork, in silence; return how it ended (0 if nothing was raised) and what it said.

    Without a limit in ``seconds`` an error is printed.
    """
    reading, writing = os.pipe()
    if not (child := os.fork()):
        end = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2) if seconds else (1,):
                os.dup2(nowhere, stream)
            if seconds:
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
                resource.setrlimit(resource.RLIMIT_DATA, (BYTES_PER_MUTANT, BYTES_PER_MUTANT))
            body(lambda said: os.write(writing, f"{json.dumps(said)}\n".encode()))
            end = 0
        except BaseException:  # a mutant may raise anything, and this process must not go on
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(end)
    os.close(writing)
    said, until = b"", time.monotonic() + (10 * seconds if seconds else 1e6)
    while select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
        piece = os.read(reading, 1 << 16)
        if not piece:
            break
        said += piece
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    end = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return end, [json.loads(line) for line in said.splitlines()]


def _execute_all(nodes: list[ast.stmt], names: dict[str, Any], _: object) -> None:
    for node in nodes:
        _execute(node, names)


def _execute(node: ast.stmt, names: dict[str, Any]) -> None:
    exec(compile(ast.Module([node], []), "<lecture>", "exec"), names)
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")
