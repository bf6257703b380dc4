"""The set-up cell: this file is its one source, and ``make notebooks`` writes it in, folded.

It installs flowlib only where it is missing, which is on Colab, and without its dependencies,
so that the torch and numpy already there stay as they are. It takes the release that its notebook
belongs to, and the newest state where there is no such release, as before the first. git may not ask
for a password: nobody would see the question.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that tools.repo runs on a bare Python
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent

FIRST_LINE = "# @title Set-up: installs flowlib only where it is missing"

TEMPLATE = f"""\
{FIRST_LINE}
import importlib.util
import subprocess
import sys

REPO = "@REPOSITORY@"
if importlib.util.find_spec("flowlib") is None:
    # on Colab: torch and numpy stay as they are
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    alone = {{"stderr": subprocess.PIPE, "start_new_session": True}}
    for tag in ("@RELEASE@", "main"):
        done = subprocess.run([*pip, f"git+{{REPO}}@{{tag}}"], **alone)
        if done.returncode == 0:
            print(f"flowlib is installed as it stands in {{tag}}.")
            break
    else:
        print(done.stderr.decode())
        raise RuntimeError(
            "Set REPO, above, to your copy of the course, and run this again."
            if "YOUR_ACCOUNT" in REPO
            else f"See that {{REPO}} is public and online, and run this again."
        )

import matplotlib.pyplot as plt
import torch

from flowlib import check, plots

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
plots.use_style()
device = "cuda" if torch.cuda.is_available() else "cpu\""""


def repository(root: Path = ROOT) -> str:
    """Return the repository's address as the files say it, which pyproject.toml alone decides."""
    return _project(root)["urls"]["Repository"]


def release(root: Path = ROOT) -> str:
    """Return the tag of the release that these files belong to."""
    return f"v{_project(root)['version']}"


def source(root: Path = ROOT) -> str:
    """Return the text of the set-up cell."""
    return TEMPLATE.replace("@REPOSITORY@", repository(root)).replace("@RELEASE@", release(root))


def is_setup(cell: NotebookNode) -> bool:
    """Whether this is a set-up cell, of today or of an earlier day."""
    return cell.cell_type == "code" and cell.source.startswith(("# @title Set-up", "# Set-up"))


def write(cell: NotebookNode) -> None:
    """Give a set-up cell today's text, and fold it in the book, on Colab and in JupyterLab."""
    cell.source = source()
    cell.metadata.update(tags=["hide-input"], cellView="form", jupyter={"source_hidden": True})


def _project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
