"""One place holds the repository's address, and one command sets it everywhere."""

from __future__ import annotations

import re
import shutil

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


def test_no_address_is_refused(capsys):
    assert repo.main([]) == 2
    assert "make repo URL=" in capsys.readouterr().err
