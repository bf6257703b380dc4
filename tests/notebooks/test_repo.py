"""One place holds the repository's address, and one command sets it everywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml

from tools import repo, setup_cell
from tools.setup_cell import ROOT, repository

NEW = "/".join(["https:/", "gitlab.example.org", "group", "flows.course"])  # in parts: this file is text, too
OUR_NAME = re.compile(r"https?://[\w.-]+/[\w.-]+/normalizing-flows-course")


@pytest.fixture
def copy(tmp_path):
    """A copy of the tree's text files."""
    for path in repo.files(ROOT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def test_all_files_agree_on_the_address():
    address = repository()
    assert repo.checked(address) == address
    for path in repo.files(ROOT):
        for found in OUR_NAME.findall(path.read_text(encoding="utf-8")):
            assert found == address, (
                f"{path.relative_to(ROOT)} says {found} and pyproject.toml says {address}"
            )


def test_the_places_that_need_the_address_have_it():
    holders = {str(path.relative_to(ROOT)) for path in repo.occurrences()}
    notebooks = {f"nbs/{path.name}" for path in (ROOT / "nbs").glob("*.ipynb")}
    assert {
        "pyproject.toml",
        "_config.yml",
        "CITATION.cff",
        "README.md",
        "book/how_to.md",
    } | notebooks <= holders


def test_the_command_sets_it_everywhere(copy):
    old, before = repository(copy), repo.occurrences(copy)
    assert repo.main([f"{NEW}.git/"], copy) == 0
    assert repository(copy) == NEW
    assert repo.occurrences(copy) == before
    for path in repo.files(copy):
        assert old not in path.read_text(encoding="utf-8"), f"{path.name} kept the old address"
    assert yaml.safe_load((copy / "_config.yml").read_text())["repository"]["url"] == NEW
    for path in (copy / "nbs").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert notebook.cells[1].source == setup_cell.source(copy)
        assert NEW in notebook.cells[1].source


def test_there_and_back_gives_the_same_bytes(copy):
    repo.set_repository(NEW, copy)
    repo.set_repository(repository(), copy)
    for path in repo.files(ROOT):
        assert (copy / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path.name


def test_a_longer_name_and_an_address_below_it(copy):
    (copy / "book" / "more.md").write_text(f"{repository()}/issues and {repository()}-old")
    old = repository()
    repo.set_repository(NEW, copy)
    assert (copy / "book" / "more.md").read_text() == f"{NEW}/issues and {old}-old"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "github.com/me/flows",
        "http://github.com/me/flows",
        "git@github.com:me/flows.git",
        "https://github.com/me",
        "https://localhost/me/flows",
        "https://github.com/me/flows?tab=readme",
        "https://github.com/me/flows; rm",
        "file:///home/me/flows",
    ],
)
def test_what_is_no_https_address_is_refused(copy, capsys, address):
    before = (copy / "pyproject.toml").read_bytes()
    assert repo.main([address], copy) == 2
    assert "https://HOST/ACCOUNT/NAME" in capsys.readouterr().err
    assert (copy / "pyproject.toml").read_bytes() == before


def test_two_addresses_are_refused(capsys):
    assert repo.main([NEW, NEW]) == 2
    assert "make repo URL=" in capsys.readouterr().err


@pytest.fixture
def no_workflow(monkeypatch):
    """As on a reader's machine, wherever this runs."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)


def origin(folder, address):
    """Make the folder a repository with this origin."""
    for command in (["init", "--quiet"], ["remote", "add", "origin", address]):
        subprocess.run(["git", "-C", folder, *command], check=True)


@pytest.mark.usefixtures("no_workflow")
@pytest.mark.parametrize(
    "address",
    [
        NEW,
        f"{NEW}.git",
        "git@gitlab.example.org:group/flows.course.git",
        "gitlab.example.org:group/flows.course",
        "ssh://git@gitlab.example.org:2222/group/flows.course.git",
        f"https://me:secret@{NEW.removeprefix('https://')}.git",
    ],
)
def test_the_address_comes_from_origin(copy, address, capsys):
    origin(copy, address)
    assert repo.home(copy) == NEW
    assert repo.main([], copy) == 0
    assert repository(copy) == NEW
    assert "secret" not in capsys.readouterr().out


@pytest.mark.usefixtures("no_workflow")
@pytest.mark.parametrize("address", [None, "/srv/git/flows.git", "../flows", "http://localhost/me/flows"])
def test_without_an_address_on_the_web_the_files_own_holds(copy, address):
    if address:
        origin(copy, address)
    assert repo.home(copy) == repository(copy)


@pytest.mark.usefixtures("no_workflow")
def test_a_repository_around_the_course_is_another(tmp_path):
    origin(tmp_path, NEW)
    inner = tmp_path / "course"
    inner.mkdir()
    shutil.copy(ROOT / "pyproject.toml", inner)
    assert repo.home(inner) == repository()


def test_in_a_workflow_its_repository_counts(copy, monkeypatch):
    origin(copy, NEW)
    monkeypatch.setenv("GITHUB_REPOSITORY", "ada/flows")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.example.org")
    assert repo.home(copy) == "https://github.example.org/ada/flows"


@pytest.mark.parametrize(
    ("address", "served"),
    [
        ("https://github.com/Ada/flows", "https://ada.github.io/flows/"),
        ("https://github.com/ada/ada.github.io", "https://ada.github.io/"),
        ("https://gitlab.com/group/sub/flows", "https://group.gitlab.io/sub/flows/"),
        ("https://git.example.org/ada/flows", None),
        ("https://github.com/YOUR_ACCOUNT/flows", None),
    ],
)
def test_where_a_repository_has_its_pages(address, served):
    assert repo.pages(address) == served


def git(folder, *command):
    author = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    done = subprocess.run(["git", "-C", folder, *author, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_the_workflow(github, tree, address, bare_python, monkeypatch):
    """The step of pages.yml that writes the branch colab, in a checkout of a repository on this disk."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text("utf-8"))
    (step,) = (step["run"] for step in workflow["jobs"]["notebooks"]["steps"] if "run" in step)
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", address.removeprefix("https://github.com/"))
    monkeypatch.setenv("GITHUB_SHA", "0123456")
    monkeypatch.setenv("PATH", f"{bare_python}{os.pathsep}{os.environ['PATH']}")
    git(github, "clone", "--quiet", "--branch=main", github, tree)
    done = subprocess.run(["bash", "-e", "-c", step], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def bare_python(tmp_path_factory):
    """A folder with a python that has the standard library alone, as GitHub's machines do."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    (folder / "python").chmod(0o755)
    return folder


def test_a_fork_gets_a_branch_for_colab(copy, tmp_path_factory, bare_python, monkeypatch):
    place = tmp_path_factory.mktemp("fork")
    github, fork = place / "flows.git", "https://github.com/ada/flows"
    subprocess.run(["git", "init", "--quiet", "--bare", github], check=True)
    origin(copy, github)
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message=fork")
    git(copy, "push", "--quiet", "origin", "HEAD:main")

    run_the_workflow(github, place / "own", repository(copy), bare_python, monkeypatch)
    assert git(github, "branch").split() == ["main"], "where the notebooks' address is right, main serves"
    for push in ("first", "second"):
        run_the_workflow(github, place / push, fork, bare_python, monkeypatch)
        served = git(github, "ls-tree", "-r", "--name-only", "colab").split()
        opened = [*(ROOT / "nbs").glob("*.ipynb"), *(ROOT / "nbs" / "labs").glob("*.ipynb")]
        assert served == sorted(str(path.relative_to(ROOT)) for path in opened), "solutions stay out"
        for name in served:
            notebook = nbformat.reads(git(github, "show", f"colab:{name}"), as_version=4)
            assert f'REPO = "{fork}"' in notebook.cells[1].source
