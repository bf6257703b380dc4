"""Pack the built book for a release: ``python -m tools.archive [v0.1.0]``, which ``make archive`` runs.

Writes a zip and its checksum to ``_build/archive``. The zip opens offline at ``index.html``, and the same
book gives the same bytes. A tag that is not flowlib's version is refused.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from tools.setup_cell import ROOT, release

NEVER = (1980, 1, 1, 0, 0, 0)  # what a zip says of a file without a time


def pack(book: Path, folder: Path, name: str) -> Path:
    """Zip a folder below a folder of the given name, and write the zip's checksum beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(path for path in book.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"{name}/{path.relative_to(book).as_posix()}", NEVER)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n", encoding="utf-8")
    return archive


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Pack the book that ``make book`` built; return the exit status."""
    tag, book = release(root), root / "_build" / "html"
    if arguments and arguments != [tag]:
        print(f"The tag is {arguments[0]} and flowlib's version, in pyproject.toml, {tag}.", file=sys.stderr)
        return 2
    if not (book / "index.html").exists():
        print("There is no book yet; make book builds it.", file=sys.stderr)
        return 2
    archive = pack(book, root / "_build" / "archive", f"normalizing-flows-course-{tag}")
    print(f"{archive.relative_to(root)} and its checksum are written.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
