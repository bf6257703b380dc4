"""Tables that people open with a spreadsheet, fill in, and save in whatever way it saves them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Unreadable(Exception):
    """A table without a column that it must have; nothing is written over it."""


def read(path: Path, *needed: str) -> list[dict[str, str]]:
    """The rows of a file that people may have saved with semicolons, or in Windows's encoding.

    Raises:
        Unreadable: if a needed column is not there.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    header = [name for name in reader.fieldnames or [] if name]
    if missing := [name for name in needed if name not in header]:
        raise Unreadable(
            f"{path} has no column “{missing[0]}” (its first line is “{first.strip()[:100]}”). Nothing was "
            f"written over it: put the header back, or take {backup(path).name}, which lies beside it."
        )
    rows = []
    for row in reader:
        beyond = row.pop(None, None)  # type: ignore[call-overload]  # cells beyond the header
        plain = {name: _typed(value or "") for name, value in row.items() if name}
        if beyond:
            plain[header[-1]] = separator.join([plain[header[-1]], *beyond])
        rows.append(plain)
    return rows


def save(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], keep: bool = False) -> None:
    """Write a table, whole or not at all, that spreadsheets open with the right letters.

    With ``keep``, a table that was there and differs stays beside it.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8-sig", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(header)
        writer.writerows([_harmless(value) for value in row] for row in rows)
    before = path.read_bytes() if keep and path.exists() else b""
    if before and before != partial.read_bytes():
        backup(path).write_bytes(before)
    os.replace(partial, path)


def backup(path: Path) -> Path:
    """Where the table lies as it was before the last change."""
    return path.with_name(f"{path.name}.bak")


def _harmless(value: str) -> str:
    """A name that a spreadsheet would run as a formula gets an apostrophe before it."""
    return f"'{value}" if str(value).startswith(FORMULA) else value


def _typed(value: str) -> str:
    """The same without that apostrophe."""
    return value[1:] if value[:1] == "'" and value[1:].startswith(FORMULA) else value
