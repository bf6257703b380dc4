"""Says how many wrong formulas each named lecture's checks notice, and writes it down for the book."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from tools.mutants.judge import ENVIRONMENT, forked, judge
from tools.mutants.results import RESULTS, divided, equivalents, merge
from tools.notebooks import LABS, Refused, find


def measured(path: Path, at_most: int | None, seed: int, seconds: float | None) -> dict[str, Any] | None:
    """Judge one lecture in a process of its own; None if the lecture itself does not run."""
    before = sum(os.times()[:4])
    end, said = forked(lambda say: say(asdict(judge(path, at_most, seed, seconds))), seconds=None)
    cpu = round(sum(os.times()[:4]) - before, 1)
    return (
        None if end else {"at_most": at_most, "seconds": seconds, "seed": seed, "cpu_seconds": cpu} | said[0]
    )


def summary(lecture: str, found: dict[str, Any]) -> str:
    """The result in words: one line, and one for each survivor."""
    alive, same, share = divided(lecture, found, equivalents())
    lines = [
        f"{lecture}: of {found['possible']} mutants {found['run']} were run; {found['killed']} die, "
        f"{len(same)} make no difference, {len(alive)} survive" + (f": {share:.1%}" if share else "")
    ]
    lines += [f"  not judged: {place}" for place in found["unjudged"]]
    lines += [f"  ({one['tag']}) cell {one['cell']}, line {one['line']}: {one['change']}" for one in alive]
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """Judge the named lectures, or all, and merge what was found into the results."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("lectures", nargs="*", help="numbers, such as 06; all if none is given")
    parser.add_argument("--at-most", type=int, help="judge a sample of so many mutants in each lecture")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, help="end each lecture early, and leave out what trains")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to write to")
    given = parser.parse_args(words)
    try:
        paths = [path for path in find(given.lectures) if path.parent.name != LABS]
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    failed = 0
    for path in paths:
        with mock.patch.dict(os.environ, ENVIRONMENT):
            import_module("flowlib.plots")  # before the fork, so once for all lectures
            found = measured(path, given.at_most, given.seed, given.seconds)
        if found is None:
            print(f"{path.name}: the lecture does not run; see the error above.", file=sys.stderr)
            failed += 1
            continue
        merge(path.name[:2], found, given.out)
        print(summary(path.name[:2], found), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
