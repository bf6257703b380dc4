"""Times of training steps and samples, in one interleaved run: ``python -m benchmarks.speed``.

One thread, float32. Every round times each library once, in turn, and the bare networks between them, so
that whatever else the machine does meets all alike. A time is the median over the rounds; a ratio is
the median over the rounds of the time divided by that of the bare networks in the same round.

Besides, in fewer rounds and eager alone: a training step at other sizes, and whole trainings (``loops.py``).
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.families import FAMILIES, Family, bare_networks, live_parameters, other_sizes
from benchmarks.loops import LOOPS, Loop, loops
from benchmarks.machine import describe
from benchmarks.models import LIBRARIES, Builder, Model, tables

RESULTS = Path(__file__).parent / "results" / "speed.json"
ROUNDS = 21
FEWER = 3  # times fewer rounds for what takes long
LEAST = 2e-3  # seconds; shorter actions are repeated within a round until they take that long
# to compile a loop over 64 entries in every layer takes longer than all the rest
NOT_COMPILED = {("maf", "sample"): "not tried: every entry of every layer would be compiled"}

Action = Callable[[], object]


def run(
    families: dict[str, Family],
    libraries: Iterable[str] = LIBRARIES,
    rounds: int = ROUNDS,
    compiled: bool = True,
    trainings: dict[str, Loop] = LOOPS,
) -> dict[str, Any]:
    """Measure all families and trainings; the result is what the page is made of."""
    torch.set_num_threads(1)
    rows = tables(libraries)
    results = {}
    for name, family in families.items():
        results[name] = measure(name, family, all_of(name, family, rows), rounds, compiled)
        results[name]["sizes"] = {
            size: measure_steps(name, other, all_of(name, other, rows), math.ceil(rounds / FEWER))
            for size, other in other_sizes(name, family).items()
        }
        print(f"{family.title} is measured.", flush=True)
    whole = {}
    for name, loop in trainings.items():
        whole[name] = measure_loops(loop, all_of(loop.family, loop.sizes, rows), math.ceil(rounds / FEWER))
        print(f"Training of {loop.title} is measured.", flush=True)
    return {"machine": describe(), "rounds": rounds, "families": results, "trainings": whole}


def all_of(name: str, family: Family, tables: dict[str, dict[str, Builder]]) -> dict[str, Model]:
    """A family's model in every library that has it."""
    return {library: build(table[name], family) for library, table in tables.items() if name in table}


def build(builder: Builder, family: Family, seed: int = 0) -> Model:
    """A model with the same seed for all."""
    torch.manual_seed(seed)
    return builder(family)


def points(family: Family) -> torch.Tensor:
    """A batch of normal numbers."""
    return torch.randn(family.batch, *family.event_shape, generator=torch.Generator().manual_seed(1))


def measure(
    name: str, family: Family, models: dict[str, Model], rounds: int, compiled: bool
) -> dict[str, Any]:
    """One family: what each model is, and its times."""
    x = points(family)
    entries: dict[str, dict[str, Any]] = {
        library: {
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "live": live_parameters(model, model.log_density, x),
            "note": model.note,
        }
        for library, model in models.items()
    }
    check_sizes(name, entries)
    torch.compiler.reset()  # forget the last family, lest its graphs count as recompilations of these
    actions = bare_actions(name, family)
    for library, model in models.items():
        actions |= {(library, what, "eager"): action for what, action in model_actions(model, x).items()}
        for what in ("train", "sample") if compiled else ():
            action, remark = compile_action(name, model, x, what)
            entries[library].setdefault("compiled", {})[what] = remark
            if action is not None:
                actions[library, what, "compiled"] = action
    times = interleave(actions, rounds)
    unit_name = "bare" if ("bare", "train", "eager") in actions else "normflows"
    for library, what, how in actions:
        if library != "bare":
            taken, unit = times[library, what, how], times.get((unit_name, what, "eager"))
            entries[library].setdefault(what, {})[how] = summary(taken, unit)
    bare = {what: 1e3 * median(taken) for (who, what, _), taken in times.items() if who == "bare"}
    shape = {"title": family.title, "event_shape": family.event_shape, "layers": family.layers}
    return {
        **shape,
        "hidden": family.hidden,
        "batch": family.batch,
        "unit": "bare networks" if unit_name == "bare" else unit_name,
        "bare_ms": bare,
        "bare_parameters": sum(p.numel() for p in bare_networks(name, family)[0].parameters()),
        "entries": entries,
    }


def measure_steps(name: str, family: Family, models: dict[str, Model], rounds: int) -> dict[str, Any]:
    """A family's training step in all libraries, and nothing else."""
    x, key = points(family), ("bare", "train", "eager")
    bare = bare_actions(name, family).get(key)
    actions = ({"bare": bare} if bare else {}) | {
        library: model_actions(model, x)["train"] for library, model in models.items()
    }
    times = interleave(actions, rounds)
    unit = times.get("bare", times.get("normflows"))
    entries = {library: {"train": {"eager": summary(times[library], unit)}} for library in models}
    return {"batch": family.batch, "hidden": family.hidden, "entries": entries}


def measure_loops(loop: Loop, models: dict[str, Model], rounds: int) -> dict[str, Any]:
    """Whole trainings, a time for each step; the unit is flowlib's model in a loop written by hand."""
    actions = loops(loop, models)
    times = {
        key: [seconds / loop.steps for seconds in taken] for key, taken in interleave(actions, rounds).items()
    }
    entries = {key: {"train": {"eager": summary(taken, times["by hand"])}} for key, taken in times.items()}
    return {"title": loop.title, "batch": loop.sizes.batch, "steps": loop.steps, "entries": entries}


def summary(taken: list[float], unit: list[float] | None) -> dict[str, float]:
    """The median time in milliseconds, and the median of its ratios to the unit in the same round."""
    found = {"ms": 1e3 * median(taken)}
    return (
        found if unit is None else found | {"ratio": median(t / u for t, u in zip(taken, unit, strict=True))}
    )


def check_sizes(name: str, entries: dict[str, Any]) -> None:
    """Refuse to compare models whose numbers of live parameters differ by more than 3 %.

    Raises:
        ValueError: naming them.
    """
    live = {library: entry["live"] for library, entry in entries.items()}
    if max(live.values()) > 1.03 * min(live.values()):
        raise ValueError(f"{name}: the models depend on {live} parameters; build them with equally many.")


def bare_actions(name: str, family: Family) -> dict[tuple[str, str, str], Action]:
    """The networks alone: a forward and a backward pass, to the inputs too, and a forward pass."""
    torch.manual_seed(0)
    module, networks = bare_networks(name, family)
    if not networks:
        return {}
    inputs = [torch.randn(family.batch, *shape, requires_grad=True) for _, shape in networks]
    calls = list(zip((net for net, _ in networks), inputs, strict=True))
    cotangents = [torch.randn_like(net(x)) for net, x in calls]

    def train() -> None:
        module.zero_grad()
        torch.autograd.backward([net(x) for net, x in calls], cotangents)

    @torch.no_grad()
    def sample() -> None:
        for net, x in calls:
            net(x)

    return {("bare", "train", "eager"): train, ("bare", "sample", "eager"): sample}


def model_actions(model: Model, x: torch.Tensor) -> dict[str, Action]:
    """A training step without the optimiser, and as many samples as there are points."""

    def train() -> None:
        model.zero_grad()
        model.log_density(x).mean().backward()

    @torch.no_grad()
    def sample() -> None:
        model.sample(len(x))

    return {"train": train, "sample": sample}


def compile_action(name: str, model: Model, x: torch.Tensor, what: str) -> tuple[Action | None, str]:
    """The same action through ``torch.compile``, or None, and what there is to remark."""
    if remark := NOT_COMPILED.get((name, what)):
        return None, remark
    reason = ""
    for whole in (True, False):
        copy = Model(
            model.flow,
            torch.compile(model.log_density, fullgraph=whole) if what == "train" else model.log_density,
            torch.compile(model.sample, fullgraph=whole) if what == "sample" else model.sample,
        )
        action = model_actions(copy, x)[what]
        try:
            action()
            return action, "one graph" if whole else "graph breaks"
        except Exception as error:  # whatever a compiler may raise is a result here, not a failure
            reason = type(error).__name__
    return None, f"fails: {reason}"


def interleave(actions: dict[Any, Action], rounds: int) -> dict[Any, list[float]]:
    """Seconds of each action in every round, after two rounds to warm up."""
    repeats = {}
    for key, action in actions.items():
        action()
        repeats[key] = math.ceil(LEAST / max(_seconds(action, 1), 1e-6))
    times: dict[Any, list[float]] = {key: [] for key in actions}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for key, action in actions.items():
                times[key].append(_seconds(action, repeats[key]))
    finally:
        gc.enable()
    return times


def _seconds(action: Action, repeats: int) -> float:
    """Processor time: with one thread it is the wall's, less what other programs take."""
    start = time.process_time()
    for _ in range(repeats):
        action()
    return (time.process_time() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=list(FAMILIES), help="leave out for all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.out == RESULTS and (arguments.eager or set(arguments.families) != set(FAMILIES)):
        parser.error("a run of a part would replace the results of the whole; give it a place with --out.")
    warnings.simplefilter("ignore")  # deprecations inside the libraries
    chosen = {name: FAMILIES[name] for name in arguments.families}
    results = run(chosen, rounds=arguments.rounds, compiled=not arguments.eager)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
