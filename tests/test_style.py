"""The code keeps its style and its type hints hold: what ``make lint`` says, as tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "flowlib", "tests", "tools", "book", "benchmarks"],
        ["mypy"],
    ],
    ids=" ".join,
)
def test_nothing_to_repair(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
