"""Similar answers side by side, by compare50, which is not installed with the course."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat

from tools.grade.rubric import paths


def compare(number: int, out: Path) -> int:
    """Write everybody's code as files and let compare50 look for what two of them share."""
    if find_spec("compare50") is None:
        print(
            "Similar answers are found by compare50, which is an extra: pip install compare50.",
            file=sys.stderr,
        )
        return 2
    code = out / "code"
    shutil.rmtree(code, ignore_errors=True)
    for path in sorted((out / "records").glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        if record["code"]:
            (code / record["key"]).mkdir(parents=True)
            (code / record["key"] / "answers.py").write_text("\n\n".join(record["code"]), "utf-8")
    from tools.assignments import student_edition

    released = student_edition(nbformat.read(paths(number)[0], 4))
    given = code / ".released" / "given.py"
    given.parent.mkdir(parents=True)
    given.write_text("\n\n".join(cell.source for cell in released.cells if cell.cell_type == "code"), "utf-8")
    entries = [str(path / "answers.py") for path in sorted(code.glob("[!.]*"))]
    shutil.rmtree(out / "similar", ignore_errors=True)
    command = [sys.executable, "-m", "compare50", *entries, "-d", str(given), "-o", str(out / "similar")]
    return subprocess.run(command).returncode
