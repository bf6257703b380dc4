"""What packages lead to, by their metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def with_dependencies(
    requirements: Iterable[Requirement],
    left_out: Callable[[str], object] = lambda name: False,
    **environment: str,
) -> set[str]:
    """All packages that the requirements lead to, as installed here.

    Args:
        requirements: where to start.
        left_out: says whether a package and what it leads to do not count.
        environment: values of markers, such as ``python_version``, that are not to be those of here.
    """
    todo, seen = list(requirements), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen or left_out(name):
            continue
        seen.add(key)
        for text in metadata.requires(name) or []:
            below = Requirement(text)
            environments = [environment | {"extra": extra} for extra in requirement.extras or {""}]
            if below.marker is None or any(map(below.marker.evaluate, environments)):
                todo.append(below)
    return {name for name, _ in seen}
