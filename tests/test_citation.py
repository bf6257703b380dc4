"""What cites and what archives the course say the same as pyproject.toml."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import yaml

from tools.setup_cell import repository

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
ARCHIVE = json.loads((ROOT / ".zenodo.json").read_text("utf-8"))


def test_one_version_and_one_address():
    assert CITATION["version"] == ARCHIVE["version"] == PROJECT["version"]
    assert CITATION["repository-code"] == repository()
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_same_title_authors_words_and_licence():
    assert CITATION["title"] == ARCHIVE["title"]
    assert [author["name"] for author in CITATION["authors"]] == [who["name"] for who in ARCHIVE["creators"]]
    assert " ".join(CITATION["abstract"].split()) == ARCHIVE["description"]
    assert CITATION["keywords"] == ARCHIVE["keywords"]
    assert CITATION["license"][0] == ARCHIVE["license"] == PROJECT["license"]
