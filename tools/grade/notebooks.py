"""Reads a notebook of any format, encoding and state: its code, and the answers written in words."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat

from tools.grade.rubric import Rubric

MARK = re.compile(r"^#+ +Answer (?P<id>[\d.]+)", re.M)
NEXT = re.compile(r"^#{1,6} +(?:\d|Part )")
PLACE = "*Write here; formulas between dollar signs.*"
NAMED = re.compile(r"^(?:def |class )?([^\W\d]\w*)\s*(?:\(|=(?!=)|:)", re.M)


@dataclass
class Notebook:
    """What a notebook holds: its code, and the Markdown under each question's heading."""

    path: Path
    code: list[str]
    written: dict[str, str]
    digest: str

    def answers(self, rubric: Rubric) -> set[str]:
        """The asked names that the code binds."""
        return rubric.names & {name for source in self.code for name in NAMED.findall(source)}


class NeedsPerson(Exception):
    """Something a person must look at; the message says what."""


def read(path: Path) -> Notebook:
    """Read a notebook of any format and encoding.

    Raises:
        NeedsPerson: if it is none.
    """
    data = path.read_bytes()
    if not data.strip():
        raise NeedsPerson(f"{path.name} is empty.")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    try:
        content = json.loads(text)
        cells = content["cells"] if "cells" in content else content["worksheets"][0]["cells"]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise NeedsPerson(f"{path.name} is not a notebook: its text is not the JSON of one.") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(Exception):  # a damaged notebook: its cells can still be read
            cells = nbformat.convert(nbformat.from_dict(content), 4).cells
    try:
        pairs = [(str(cell["cell_type"]), _text(cell)) for cell in cells]
    except (TypeError, KeyError, AttributeError):
        raise NeedsPerson(f"{path.name} is damaged: a cell has no type or no text.") from None
    code = [source for kind, source in pairs if kind == "code" and source.strip()]
    written = _written(source for kind, source in pairs if kind != "code")
    return Notebook(path, code, written, hashlib.sha256(json.dumps([code, written]).encode()).hexdigest())


def _written(cells: Iterable[str]) -> dict[str, str]:
    """The text under each heading ``### Answer 2.3``, up to the next question's heading."""
    found: dict[str, list[str]] = {}
    current = None
    for source in cells:
        for line in source.splitlines():
            if mark := MARK.match(line):
                current = mark["id"].strip(".")
                found.setdefault(current, [])
            elif NEXT.match(line):
                current = None
            elif current and line.strip() != PLACE:
                found[current].append(line)
    return {id: "\n".join(lines).strip() for id, lines in found.items()}


def _text(cell: dict[str, str | list[str]]) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = source if isinstance(source, str) else "".join(map(str, source))
    return text.replace("\r\n", "\n").replace("\r", "\n")
