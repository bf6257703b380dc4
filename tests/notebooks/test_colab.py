"""A rehearsal of Colab: in an empty folder a lecture installs flowlib and runs, and all imports are there.

The environment holds what Colab brings and nothing else. git is told to take the repository's address
for a local copy of this tree, so that the set-up cell runs as it stands and tests what is not pushed yet.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from packaging.requirements import Requirement

from tests.notebooks.dependencies import with_dependencies
from tools.notebooks import KERNEL_ENVIRONMENT, LECTURES
from tools.setup_cell import ROOT, release, repository, source

PREINSTALLED = ("pip", "torch", "numpy", "matplotlib", "scikit-learn", "ipykernel")

REPORT = """\
import json, numpy, flowlib
print(json.dumps([module.__file__ for module in (flowlib, torch, numpy)]))"""


def run(*command: str | Path, **options) -> str:
    """Run a command and return what it printed; what it says is shown if it fails."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def packages(python: Path) -> set[str]:
    """The name and version of every package in an environment."""
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    return {f"{package['name'].lower()} {package['version']}" for package in listed}


@pytest.fixture(scope="module")
def colab_python() -> Path:
    """The interpreter of an environment with what Colab preinstalls, kept from run to run.

    Its packages are links to those that run this test: a CUDA build of torch takes gigabytes.
    """
    preinstalled = with_dependencies(map(Requirement, PREINSTALLED))
    found = sorted(f"{name}=={metadata.version(name)}" for name in preinstalled)
    key = hashlib.sha256(f"{sys.version}{found}".encode()).hexdigest()[:12]
    folder = ROOT / "_build" / "colab-env" / key
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder.parent, ignore_errors=True)
        venv.create(folder)
        site_packages = Path(sysconfig.get_path("purelib", "venv", {"base": folder, "platbase": folder}))
        for file in (file for name in preinstalled for file in metadata.files(name) or []):
            if ".." not in file.parts:  # programs
                (site_packages / file).parent.mkdir(parents=True, exist_ok=True)
                (site_packages / file).symlink_to(file.locate())
        (folder / "ready").touch()
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "flowlib")
    assert not any(name.startswith("flowlib ") for name in packages(python))
    return python


@pytest.fixture
def local_repository(tmp_path) -> Path:
    """A bare repository whose release is the tree as it lies here, and whose main has no flowlib any more.

    .gitignore decides what is left out.
    """
    tree, bare = tmp_path / "tree", tmp_path / "repository.git"
    left = shutil.ignore_patterns(".git", ".venv", "_build", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, tree, ignore=left)
    alone = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    author = ["-c", "user.name=rehearsal", "-c", "user.email=rehearsal@example.org"]
    run("git", "init", "--quiet", "--initial-branch=main", tree, env=alone)
    run("git", "-C", tree, "add", "--all", env=alone)
    run("git", "-C", tree, *author, "commit", "--quiet", "--message=rehearsal", env=alone)
    run("git", "-C", tree, "tag", release(), env=alone)
    run("git", "-C", tree, "rm", "-r", "--quiet", "flowlib", env=alone)
    run("git", "-C", tree, *author, "commit", "--quiet", "--message=later", env=alone)
    run("git", "clone", "--quiet", "--bare", tree, bare, env=alone)
    return bare


@pytest.fixture
def colab_kernel(colab_python, tmp_path, monkeypatch) -> str:
    """The name of a kernel that runs in that environment."""
    command = [str(colab_python), "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    folder = tmp_path / "jupyter" / "kernels" / "colab"
    folder.mkdir(parents=True)
    spec = {"argv": command, "display_name": "Colab", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return "colab"


def kernel_environment(python: Path, repository_here: Path) -> dict[str, str]:
    """The environment of a kernel that knows nothing of this checkout but where to clone it."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in ours} | {
        **KERNEL_ENVIRONMENT,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONNOUSERSITE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{repository_here}.insteadOf",
        "GIT_CONFIG_VALUE_0": repository(),
    }


def imports() -> str:
    """What the lectures and labs import, outside of functions and conditions, a line each."""
    cells = [
        cell.source
        for path in sorted(LECTURES.rglob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code" and "skip-execution" not in cell.metadata.get("tags", [])
    ]
    statements = (statement for cell in cells for statement in ast.parse(cell).body)
    found = (ast.unparse(node) for node in statements if isinstance(node, ast.Import | ast.ImportFrom))
    return "\n".join(dict.fromkeys(found))


def test_a_lecture_runs_on_colab(colab_python, colab_kernel, local_repository, tmp_path):
    lecture = next(LECTURES.glob("01_*.ipynb"))  # it trains nothing; its outputs are compared elsewhere
    folder = tmp_path / "alone"
    folder.mkdir()
    notebook = nbformat.read(shutil.copy(lecture, folder), as_version=4)
    assert notebook.cells[1].source == source(), "make notebooks writes the set-up cell"
    notebook.cells += [new_code_cell(imports()), new_code_cell(REPORT)]
    before = packages(colab_python)

    client = NotebookClient(
        notebook,
        kernel_name=colab_kernel,
        timeout=600,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=kernel_environment(colab_python, local_repository))

    (said,) = notebook.cells[1].outputs
    assert said.text == f"flowlib is installed as it stands in {release()}.\n"
    site_packages = colab_python.parent.parent / "lib"
    for file in json.loads(notebook.cells[-1].outputs[0].text):
        assert Path(file).is_relative_to(site_packages), f"{file} is not the environment's"
    installed = packages(colab_python) - before
    assert [name.split()[0] for name in installed] == ["flowlib"], "the set-up cell changed other packages"
    assert before <= packages(colab_python)


def test_an_address_that_does_not_answer_ends_in_a_sentence(colab_python, tmp_path):
    run(colab_python, "-m", "pip", "uninstall", "--quiet", "--yes", "flowlib")
    command = [colab_python, "-c", source()]
    nowhere = kernel_environment(colab_python, tmp_path / "nothing.git")
    done = subprocess.run(command, env=nowhere, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch("RuntimeError: .* run this again\\.", done.stderr.splitlines()[-1])
