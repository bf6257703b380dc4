"""Finds each student's files in what a learning platform gives: a zip or a folder in one of its layouts."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tools.grade import released, written
from tools.grade.notebooks import NeedsPerson, Notebook, read
from tools.grade.rubric import Rubric

# Moodle: a folder for each student, or names that start alike; before 4.1 with a trailing underscore
MOODLE = re.compile(
    r"^(?P<name>.*)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)(?:_(?P<original>.*))?$", re.S
)
# Canvas: one folder of files; anonymous ones carry five letters and digits instead of a number
CANVAS = re.compile(r"^(?P<name>.*?)(?:_LATE)?_(?P<id>\d+)_(?P<file>\d+)_(?P<original>.+)$", re.S)
ANONYMOUS = re.compile(
    r"^(?P<name>anon)(?:_LATE)?_(?P<id>[A-Za-z0-9]{5})(?:_LATE)?_(?P<file>\d+)_(?P<original>.+)$"
)
LARGEST_FILE, MOST_FILES = 100 << 20, 20_000


@dataclass
class Submission:
    """One student's files. ``entry`` is how the platform names what it takes back."""

    entry: str
    name: str
    id: str
    layout: str
    files: list[Path] = field(default_factory=list)

    @property
    def key(self) -> str:
        """A file name that is safe everywhere and no other submission has."""
        plain = unicodedata.normalize("NFKD", self.name).encode("ascii", "ignore").decode()
        digest = hashlib.sha256(f"{self.layout} {self.id} {self.name}".encode()).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9]+', '-', plain).strip('-')[:40] or 'student'}-{digest}"


def unpack(archive: Path, folder: Path) -> list[str]:
    """Write a zip's files below the folder and nowhere else; return a sentence for each it left out."""
    left_out = []
    with zipfile.ZipFile(archive) as opened:
        for number, member in enumerate(opened.infolist()):
            place = PurePosixPath(_name(member).replace("\\", "/"))
            if member.is_dir() or _hidden(place.parts):
                continue
            if place.is_absolute() or ".." in place.parts or re.match(r"^[A-Za-z]:", str(place)):
                left_out.append(f"“{place}” wants to be written outside the folder and was left out.")
            elif member.file_size > LARGEST_FILE or number >= MOST_FILES:
                left_out.append(f"“{place}” is too large, or one of too many files, and was left out.")
            else:
                target = folder.joinpath(*(_short(part) for part in place.parts))
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source:
                    target.write_bytes(source.read(LARGEST_FILE))
    return left_out


def find(folder: Path) -> list[Submission]:
    """Every student's submission below a folder, in the order of their names."""
    inside = [path for path in folder.iterdir() if not _hidden((path.name,))]
    if len(inside) == 1 and inside[0].is_dir() and _wraps_all(inside[0]):
        return find(inside[0])
    found: dict[tuple[str, str, str], Submission] = {}
    for path in sorted(inside):
        layout, name, id, entry = _read(path)
        if layout == "flat" and path.is_file() and path.suffix != ".ipynb":
            continue
        one = found.setdefault((layout, name, id), Submission(entry, name, id, layout))
        one.files += (
            [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
        )
        one.files = [
            file
            for file in one.files
            if not file.is_symlink() and not _hidden(file.relative_to(folder).parts)
        ]
    return sorted(found.values(), key=lambda one: (one.name.casefold(), one.id))


def choose(submission: Submission, rubric: Rubric, others: Iterable[Rubric], scratch: Path) -> Notebook:
    """The one notebook that answers this assignment, whatever its name is.

    Raises:
        NeedsPerson: if there is none, or two that differ, or it belongs to another assignment.
    """
    files = list(_with_archives(submission.files, scratch))
    candidates = [path for path in files if path.suffix.lower() == ".ipynb" or _looks_like_notebook(path)]
    if not candidates:
        names = ", ".join(sorted(path.name for path in files)) or "nothing at all"
        raise NeedsPerson(f"There is no notebook among what was handed in ({names}).")
    notebooks, problems = [], []
    for path in candidates:
        try:
            notebooks.append(read(path))
        except NeedsPerson as problem:
            problems.append(str(problem))
    belongs = {notebook.digest: _best(notebook, [rubric, *others]) for notebook in notebooks}
    fitting = {one.digest: one for one in notebooks if belongs[one.digest] == rubric.number}
    if len(fitting) > 1:
        own = {digest: one for digest, one in fitting.items() if not _is_as_given(one, rubric)}
        fitting = own or dict([fitting.popitem()])  # all as given out: they are worth the same
    if len(fitting) > 1:
        names = ", ".join(sorted(notebook.path.name for notebook in fitting.values()))
        raise NeedsPerson(
            f"Several notebooks answer this assignment and differ ({names}). Leave only the one that counts "
            "in the student's folder and grade that folder; a zip lies unpacked under “submissions”, in the "
            "folder of what comes out."
        )
    if not fitting:
        for one in notebooks:
            if number := belongs[one.digest]:
                raise NeedsPerson(f"{one.path.name} answers assignment {number}, not {rubric.number}.")
        asked = (
            f"None of the asked names is bound in {', '.join(notebook.path.name for notebook in notebooks)}."
        )
        raise NeedsPerson(" ".join(problems) if problems else asked)
    return next(iter(fitting.values()))


def _is_as_given(notebook: Notebook, rubric: Rubric) -> bool:
    """Whether it is the edition that was given out, apart from the student's number."""
    as_given = released.given(rubric.edition).is_code_of(notebook)
    return as_given and not any(written.answers(notebook.words, rubric).values())


def _best(notebook: Notebook, rubrics: list[Rubric]) -> int:
    """The assignment whose names a notebook binds most of; 0 if it binds none."""
    counts = [(len(notebook.answers(one)), one.number) for one in rubrics]
    most, number = max(counts, key=lambda count: count[0])
    return number if most else 0


def _read(path: Path) -> tuple[str, str, str, str]:
    """Layout, name, id, and how the platform names what it takes back."""
    name = unicodedata.normalize("NFC", path.name)
    if match := MOODLE.match(name):
        stem = (
            path.name[: len(path.name) - len(match["original"] or "")].rstrip("_")
            if path.is_file()
            else path.name
        )
        stem = stem.replace("_assignsubmission_onlinetext", "_assignsubmission_file")
        return "moodle", match["name"], match["id"], stem
    if path.is_file() and (match := ANONYMOUS.match(name) or CANVAS.match(name)):
        return "canvas", match["name"], match["id"], path.name[: -len(match["original"])]
    return "flat", name if path.is_dir() else path.stem, "", path.name if path.is_dir() else path.stem


def _wraps_all(folder: Path) -> bool:
    """Whether a lone folder holds everybody's files rather than one student's."""
    if MOODLE.match(folder.name):
        return False
    children = list(folder.iterdir())
    named = any(pattern.match(path.name) for path in children for pattern in (MOODLE, CANVAS, ANONYMOUS))
    return named or any(map(Path.is_dir, children)) or sum(path.suffix == ".ipynb" for path in children) > 1


def _with_archives(files: list[Path], scratch: Path) -> Iterator[Path]:
    """The files, and those in zips that students handed in."""
    for path in files:
        if path.suffix.lower() != ".zip":
            yield path
            continue
        try:
            unpack(path, scratch / path.stem)
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError):
            yield path
            continue
        yield from (file for file in sorted((scratch / path.stem).rglob("*")) if file.is_file())


def _looks_like_notebook(path: Path) -> bool:
    if path.suffix.lower() not in ("", ".json", ".txt") or path.stat().st_size > LARGEST_FILE:
        return False
    return b'"cells"' in path.read_bytes()


def _hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts if part not in (".", ".."))


def _short(part: str) -> str:
    """At most 200 bytes, for a name in emoji has four each and a file system takes 255."""
    stem, dot, suffix = part.rpartition(".")
    while len(part.encode()) > 200 and len(stem or part) > 8:
        stem, suffix = ((stem or part)[:-1], suffix) if dot else (part[:-1], "")
        part = f"{stem}.{suffix}" if dot else stem
    return part


def _name(member: zipfile.ZipInfo) -> str:
    """The name as it was meant: some programs write UTF-8 without saying so."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename
