"""pyproject.toml, requirements.lock and environment.yml name the same packages."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.notebooks.dependencies import with_dependencies
from tools.setup_cell import ROOT

# what environment.yml adds for students
ONLY_FOR_STUDENTS = {"jupyterlab"}
# what pip freeze leaves out: they belong to pip, as pip itself does
OF_PIP = {"setuptools", "wheel"}
# what the CUDA builds of torch bring, each its own versions: a lock of theirs would exclude all others
OF_CUDA = re.compile(r"(cuda|nvidia|triton)\b.*")
# where the lock is complete, whatever runs these tests
LINUX = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# the first release of each Python that pyproject.toml names: Debian 12 stays at 3.11.2
NAMED = "Programming Language :: Python :: "
PYTHONS = [f"{name.removeprefix(NAMED)}.0" for name in PROJECT["classifiers"] if name.startswith(NAMED)]


def lock() -> dict[str, str]:
    """The locked version of each package."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "requirements.lock holds a line that is not name==version"
    return {canonicalize_name(name): version for name, version in pins}


def project(*extras: str) -> dict[str, Requirement]:
    """What pyproject.toml asks for, flowlib's own extras resolved."""
    asked = list(PROJECT["dependencies"])
    for extra in extras:
        asked += PROJECT["optional-dependencies"][extra]
    found = {}
    for requirement in map(Requirement, asked):
        if requirement.name == "flowlib":
            found |= project(*requirement.extras)
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


def test_the_lock_holds_versions_alone():
    for name, version in lock().items():
        assert re.fullmatch(r"[\w.]+", version), f"{name}=={version} is no plain version"


@pytest.mark.parametrize("name", sorted(project("course")))
def test_every_dependency_is_locked_as_pyproject_allows(name):
    requirement = project("course")[name]
    assert name in lock(), f"{name} is in pyproject.toml but not in requirements.lock"
    assert requirement.specifier.contains(lock()[name], prereleases=True)


def test_the_lock_is_complete_and_has_nothing_else():
    needed = set()
    for python in PYTHONS:
        versions = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
        needed |= with_dependencies(project("course").values(), OF_CUDA.fullmatch, **LINUX, **versions)
    assert set(lock()) == needed - OF_PIP


def test_the_lock_installs_on_every_python_that_is_promised():
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={PYTHONS[0].rpartition('.')[0]}")
    excluded = [
        f"{name}=={version} wants Python {wanted}"
        for name, version in lock().items()
        if (wanted := metadata.metadata(name).get("Requires-Python"))
        and not all(SpecifierSet(wanted).contains(python) for python in PYTHONS)
    ]
    assert not excluded, f"Python {' and '.join(PYTHONS)} are promised: pin older versions."


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
