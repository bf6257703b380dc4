"""Print what there is to repair in the named notebooks, or in all."""

from __future__ import annotations

import sys

from tools.lint import Lecture, rules_of
from tools.notebooks import Refused, find


def main(names: list[str]) -> int:
    """Return 0 if the notebooks keep every rule."""
    try:
        paths = find(names)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    found = [
        f"{path.name}: {problem}"
        for path in paths
        for rule in rules_of(path)
        for problem in rule(Lecture(path))
    ]
    print("\n".join(found) or f"{len(paths)} notebooks keep every rule.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
