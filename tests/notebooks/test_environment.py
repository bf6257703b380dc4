"""pyproject.toml, requirements.lock and environment.yml name the same packages."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.setup_cell import ROOT

# what environment.yml adds for students
ONLY_FOR_STUDENTS = {"jupyterlab"}
# what pip freeze leaves out: they belong to pip, as pip itself does
OF_PIP = {"setuptools", "wheel"}


def lock() -> dict[str, str]:
    """The locked version of each package."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "requirements.lock holds a line that is not name==version"
    return {canonicalize_name(name): version for name, version in pins}


def project(*extras: str) -> dict[str, Requirement]:
    """What pyproject.toml asks for, flowlib's own extras resolved."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = list(table["dependencies"])
    for extra in extras:
        asked += table["optional-dependencies"][extra]
    found = {}
    for requirement in map(Requirement, asked):
        if requirement.name == "flowlib":
            found |= project(*requirement.extras)
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


def with_dependencies(requirements: dict[str, Requirement]) -> set[str]:
    """All packages that the requirements lead to, as installed here."""
    todo, seen = list(requirements.values()), set()
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in metadata.requires(requirement.name) or []:
            below = Requirement(text)
            environments = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
            if below.marker is None or any(below.marker.evaluate(one) for one in environments):
                todo.append(below)
    return {name for name, _ in seen}


def test_the_lock_holds_versions_alone():
    for name, version in lock().items():
        assert re.fullmatch(r"[\w.]+", version), f"{name}=={version} is no plain version"


@pytest.mark.parametrize("name", sorted(project("course")))
def test_every_dependency_is_locked_as_pyproject_allows(name):
    requirement = project("course")[name]
    assert name in lock(), f"{name} is in pyproject.toml but not in requirements.lock"
    assert requirement.specifier.contains(lock()[name], prereleases=True)


def test_the_lock_is_complete_and_has_nothing_else():
    assert set(lock()) == with_dependencies(project("course")) - OF_PIP


def test_these_tests_run_on_the_locked_versions():
    installed = {name: metadata.version(name).split("+")[0] for name in lock()}
    assert installed == lock()


def test_the_conda_environment_agrees():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, from_pip = environment["dependencies"]
    assert {"python=3.11", "pip", "git", "make"} == set(conda)
    options = {line for line in from_pip["pip"] if line.startswith("--")}
    assert options == {"--constraint requirements.lock", "--editable ."}
    named = [Requirement(line) for line in from_pip["pip"] if line not in options]
    assert {canonicalize_name(one.name) for one in named} == set(project("course")) | ONLY_FOR_STUDENTS
    for one in named:
        if one.name not in ONLY_FOR_STUDENTS:
            assert str(one.specifier) == f"=={lock()[canonicalize_name(one.name)]}"
