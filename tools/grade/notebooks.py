"""Reads a notebook of any format, encoding and state: its code, and its Markdown with the pictures in it."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat

from tools.grade.rubric import Rubric

PLACE = "*Write here; formulas between dollar signs.*"
PICTURES = ("image/png", "image/jpeg")
NAMED = re.compile(r"^(?:def |class )?([^\W\d]\w*)\s*(?:\(|=(?!=)|:)", re.M)


@dataclass
class Notebook:
    """What a notebook holds, cell by cell: its code, and its Markdown."""

    path: Path
    code: list[str]
    words: list[str]
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
        pairs = [(str(cell["cell_type"]), _with_pictures(_text(cell), cell)) for cell in cells]
    except (TypeError, KeyError, AttributeError):
        raise NeedsPerson(f"{path.name} is damaged: a cell has no type or no text.") from None
    code = [source for kind, source in pairs if kind == "code" and source.strip()]
    words = [source for kind, source in pairs if kind != "code"]
    return Notebook(path, code, words, hashlib.sha256(json.dumps([code, words]).encode()).hexdigest())


def _with_pictures(text: str, cell: dict[str, Any]) -> str:
    """The text with the pictures that were pasted into the cell in place of their names."""
    pasted: Any = cell.get("attachments")
    for name in sorted(pasted if isinstance(pasted, dict) else (), key=len, reverse=True):
        for kind in PICTURES:
            if isinstance(pasted[name], dict) and isinstance(pasted[name].get(kind), str | list):
                data = "".join("".join(map(str, pasted[name][kind])).split())
                for written in (name, quote(name)):
                    text = text.replace(f"attachment:{written}", f"data:{kind};base64,{data}")
    return text


def _text(cell: dict[str, Any]) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = source if isinstance(source, str) else "".join(map(str, source))
    return text.replace("\r\n", "\n").replace("\r", "\n")
