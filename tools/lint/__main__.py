"""Print what there is to repair in the named lectures, or in all."""

from __future__ import annotations

import sys

from tools.lint import RULES, Lecture
from tools.notebooks import Refused, find


def main(names: list[str]) -> int:
    """Return 0 if the lectures keep every rule."""
    try:
        paths = find(names)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    found = [f"{path.name}: {problem}" for path in paths for rule in RULES for problem in rule(Lecture(path))]
    print("\n".join(found) or f"{len(paths)} notebooks keep every rule.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
