"""Similar answers side by side, by compare50, which lives in an environment of its own.

It asks for older versions of what Jupyter needs, so it cannot be installed beside the course.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.grade import released
from tools.grade.records import Record
from tools.grade.rubric import paths

OWN = Path(__file__).parents[2] / ".venv" / "compare50" / "bin" / "compare50"
HOW = f"""Similar answers are found by compare50, which needs an environment of its own:
  {sys.executable} -m venv .venv/compare50
  .venv/compare50/bin/pip install compare50"""


def compare(number: int, out: Path, assignments: Path) -> int:
    """Write everybody's code as files and let compare50 look for what two of them share."""
    program = shutil.which("compare50", path=f"{OWN.parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        print(HOW, file=sys.stderr)
        return 2
    code = out / "code"
    shutil.rmtree(code, ignore_errors=True)
    for path in sorted((out / "records").glob("*.json")):
        record = Record.load(path)
        if record and record.code:
            _write(code / record.key / "answers.py", record.code)
    _write(code / ".given" / "given.py", released.given(paths(number, assignments)[0]).code)
    shutil.rmtree(out / "similar", ignore_errors=True)
    entries = [str(path) for path in sorted(code.glob("[!.]*/answers.py"))]
    # its start script takes the first python3 of the path, so that one has to be its own
    its_own = os.environ | {"PATH": f"{Path(program).resolve().parent}{os.pathsep}{os.environ['PATH']}"}
    command = [program, *entries, "-d", str(code / ".given" / "given.py"), "-o", str(out / "similar")]
    return subprocess.run(command, env=its_own).returncode


def _write(path: Path, cells: Sequence[str]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("\n\n".join(cells), "utf-8")
