"""Writes a batch as Moodle, Canvas or a plain folder would."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tests.grading.batch import Case, version_3


def write(layout: str, batch: Iterable[Case], folder: Path) -> None:
    """Write every case's files in that layout."""
    for number, case in enumerate(batch, 5001):
        for name, data in case.files.items():
            place = folder / PLACES[layout](case.name.replace("/", " "), number, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(_converted(data))


def _converted(data: bytes) -> bytes:
    if data.startswith(b"@3"):
        return version_3(data[2:])
    if data.startswith(b"@zip"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as opened:
            opened.writestr("inner/a.ipynb", data[4:])
        return packed.getvalue()
    return data[3:].decode().encode("utf-16") if data.startswith(b"@16") else data


PLACES = {
    "moodle": lambda student, number, name: f"{student}_{number}_assignsubmission_file_/{name}",
    "canvas": lambda student, number, name: (
        f"{student.lower()}{'_LATE' if number % 3 else ''}_{number}_9{number}{len(name)}_{name}"
    ),
    "flat": lambda student, number, name: f"{student}/{name}",
}
