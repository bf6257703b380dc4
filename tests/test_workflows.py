"""The workflows on GitHub: what actionlint says of them, and what they promise."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import archive

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def complaints(workflow: Path) -> str:
    """What actionlint finds in a file; what other linters of this machine would find is left out."""
    program = Path(sys.executable).with_name("actionlint")
    command = [program, "-no-color", "-shellcheck=", "-pyflakes=", workflow]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def jobs(workflow: Path) -> dict[str, Any]:
    return yaml.safe_load(workflow.read_text("utf-8"))["jobs"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actionlint_has_nothing_to_say(workflow):
    assert not complaints(workflow)


@pytest.mark.parametrize(
    ("workflow", "right", "wrong", "says"),
    [
        ("test", "matrix.python ", "matrix.pyton ", 'property "pyton" is not defined'),
        ("pages", "steps.pages.", "steps.page.", 'property "page" is not defined'),
        ("release", "needs: build", "needs: biuld", "biuld"),
        ("release", "contents: write", "content: write", "content"),
    ],
)
def test_actionlint_finds_what_is_wrong(tmp_path, workflow, right, wrong, says):
    text = (ROOT / ".github" / "workflows" / f"{workflow}.yml").read_text("utf-8")
    assert right in text
    (tmp_path / "wrong.yml").write_text(text.replace(right, wrong), "utf-8")
    assert says in complaints(tmp_path / "wrong.yml")


def test_every_promised_python_is_tested():
    named = "Programming Language :: Python :: "
    promised = [line.removeprefix(named) for line in PROJECT["classifiers"] if line.startswith(named)]
    test = jobs(ROOT / ".github" / "workflows" / "test.yml")["test"]
    assert test["strategy"]["matrix"]["python"] == promised
    assert test["steps"][-1]["run"] == ".ci/run"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_permissions_least(workflow):
    """Actions of GitHub's own, by their major version; what may write runs nothing that is installed."""
    whole = yaml.safe_load(workflow.read_text("utf-8"))
    assert whole["permissions"] in ({}, {"contents": "read"})
    for name, job in jobs(workflow).items():
        assert job["timeout-minutes"] <= 60
        steps = job["steps"]
        used = [step["uses"] for step in steps if "uses" in step]
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used), used
        commands = "\n".join(step.get("run", "") for step in steps)
        if "write" in job.get("permissions", {}).values():
            assert not re.search(r"\b(make|pip|\.ci/run)\b", commands), f"{workflow.stem}, {name}"


def a_book(root: Path, version: str = "1.2.3") -> None:
    (root / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n', "utf-8")
    (root / "_build" / "html" / "nbs").mkdir(parents=True)
    (root / "_build" / "html" / "index.html").write_text("start", "utf-8")
    (root / "_build" / "html" / "nbs" / "01.html").write_text("one", "utf-8")


def test_the_offline_book_is_packed_with_its_checksum(tmp_path, capsys):
    a_book(tmp_path)
    assert archive.main(["v1.2.3"], tmp_path) == 0
    folder, name = tmp_path / "_build" / "archive", "normalizing-flows-course-v1.2.3"
    packed = folder / f"{name}.zip"
    with zipfile.ZipFile(packed) as book:
        assert book.namelist() == [f"{name}/index.html", f"{name}/nbs/01.html"]
        assert book.read(f"{name}/index.html") == b"start"
    said = (folder / f"{name}.zip.sha256").read_text("utf-8")
    assert said == f"{hashlib.sha256(packed.read_bytes()).hexdigest()}  {name}.zip\n"
    before = packed.read_bytes()
    (tmp_path / "_build" / "html" / "index.html").touch()
    assert archive.main([], tmp_path) == 0
    assert packed.read_bytes() == before, "the same book gives the same bytes"


def test_a_tag_of_another_version_is_refused(tmp_path, capsys):
    a_book(tmp_path)
    assert archive.main(["v1.3.0"], tmp_path) == 2
    assert "The tag is v1.3.0 and flowlib's version, in pyproject.toml, v1.2.3." in capsys.readouterr().err
    assert not (tmp_path / "_build" / "archive").exists()


def test_without_a_book_nothing_is_packed(tmp_path, capsys):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1"\n', "utf-8")
    assert archive.main([], tmp_path) == 2
    assert "make book" in capsys.readouterr().err
