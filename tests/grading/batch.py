# ruff: noqa: E501  (students' cells, a line each)
"""Synthetic submissions of the small assignment: every fault that a hundred students bring, and what it must cost.

A case is a name, the file or files handed in, and either the points or a part of the sentence that sends it
to a person; ``trouble`` is a part of what the feedback page must say of a cell or a check.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.grading.course import ANSWERS, AVERAGE, FULL, SCALED, START, STUBS, UNIT
from tools.grade.notebooks import PLACE


@dataclass
class Case:
    """One student."""

    name: str
    files: dict[str, bytes]
    points: float | None = FULL
    person: str = ""
    trouble: str = ""
    student: int = 0

    @property
    def slow(self) -> bool:
        """Whether a cell takes seconds for its imports."""
        return any(name in data for data in self.files.values() for name in (b"torch", b"flowlib"))


def notebook(*cells: str, written: str = "It is so.", **more: object) -> bytes:
    """A notebook as JupyterLab writes it."""
    markdown = {"cell_type": "markdown", "id": "w", "metadata": {}, "source": f"### Answer 2.4\n\n{written}"}
    code = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source,
        }
        for i, source in enumerate(cells)
    ]
    content = {"cells": [*code, markdown], "metadata": {}, "nbformat": 4, "nbformat_minor": 5} | more
    return json.dumps(content, ensure_ascii=False).encode()


def changed(data: bytes, **fields: object) -> bytes:
    """The same notebook with some fields of every cell set, or taken away by None."""
    content = json.loads(data)
    for cell in content["cells"]:
        for name, value in fields.items():
            cell[name] = value
            if value is None:
                del cell[name]
    return json.dumps(content).encode()


def with_line_ends(data: bytes) -> bytes:
    """The notebook as an editor on Windows saves it, a line for each value."""
    return json.dumps(json.loads(data), indent=1).replace("\n", "\r\n").encode()


def version_3(data: bytes) -> bytes:
    """The same in the format of IPython 2."""
    cells = []
    for cell in json.loads(data)["cells"]:
        text = cell["source"].splitlines(True)
        if cell["cell_type"] == "code":
            more = {
                "input": text,
                "language": "python",
                "outputs": [],
                "prompt_number": 1,
                "collapsed": False,
            }
            cells.append({"cell_type": "code", "metadata": {}} | more)
        else:
            cells.append({"cell_type": "markdown", "metadata": {}, "source": text})
    return json.dumps(
        {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": cells}]}
    ).encode()


COLAB = {
    "colab": {"provenance": []},
    "kernelspec": {"name": "python3", "display_name": "Python 3"},
    "accelerator": "GPU",
}
ANOTHER_WAY = """import torch
def scaled(z, s):
    slopes = torch.func.jacrev(lambda z: s * z)(torch.tensor(z, dtype=torch.float64))
    return slopes @ torch.tensor(z, dtype=torch.float64), slopes.diagonal().abs().log()"""
BOMB = """import os, time
for _ in range(9):  # 512 processes, no more
    try:
        os.fork()
    except OSError:
        pass
time.sleep(30)"""
FAMILY = """import os, time
for _ in range(3):
    if not os.fork():
        hoard = b"x" * (250 << 20)
        time.sleep(30)
time.sleep(30)"""
WRONG = "def scaled(z, s):\n    return z, z"
FORGED = """import os
line = b'{"reply": {"array": "AAAAAAAA8D8=", "dtype": "<f8", "shape": []}}\\n' * 50
print(line.decode())
for channel in range(3, 64):
    try:
        os.write(channel, line)
    except OSError:
        pass"""
WRITES = """import os
os.makedirs(os.path.dirname(r"@GRADEBOOK@"), exist_ok=True)  # in a /tmp that is the notebook's own
open(r"@GRADEBOOK@", "w").write("hello")
open("/usr/hello", "w")"""


def cases(places: dict[str, Path]) -> Iterator[Case]:
    """Every case, each with a student number of its own; ``places`` is what cheats look for."""
    for number, case in enumerate(_cases(), 101):
        case.student = case.student or number
        marks = {"START": START.format(student=case.student)} | {k: str(v) for k, v in places.items()}
        for mark, text in marks.items():
            replaced = json.dumps(text)[1:-1].encode()
            case.files = {
                name: data.replace(f"@{mark}@".encode(), replaced) for name, data in case.files.items()
            }
        yield case


def _cases() -> Iterator[Case]:
    good = notebook("@START@", *ANSWERS)

    def one(name: str, *cells: str, points: float = FULL, trouble: str = "") -> Case:
        return Case(name, {"work.ipynb": notebook("@START@", *cells)}, points, trouble=trouble)

    # how notebooks look when they come back
    yield Case("Perfect Student", {"2_likelihood.ipynb": good})
    yield one("Another Method", ANOTHER_WAY, UNIT, AVERAGE)
    yield Case("Duplicated Ids", {"a.ipynb": changed(good, id="same")})
    yield Case("No Metadata", {"a.ipynb": changed(good, id=None, metadata=None, outputs=None)})
    yield Case("Reordered Cells", {"a.ipynb": notebook(AVERAGE, SCALED, "@START@", UNIT)})
    yield Case("Renamed File", {"Untitled7 (copy) final FINAL.ipynb": good})
    yield Case("Older Format", {"a.ipynb": b"@3" + good})
    yield Case(
        "Windows Editor",
        {"a.ipynb": b"\xef\xbb\xbf" + with_line_ends(good.replace(b"\\n", b"\\r\\n"))},
    )
    yield Case("Sixteen Bits", {"a.ipynb": b"@16" + good})
    yield Case(
        "Jupyter Lab", {"a.ipynb": changed(good, metadata={"tags": [], "jupyter": {"source_hidden": True}})}
    )
    yield Case("Colab User", {"a.ipynb": notebook("@START@", *ANSWERS, metadata=COLAB)})
    yield Case("No Suffix", {"notebook.json": good})
    yield Case("Zipped Twice", {"mine.zip": b"@zip" + good})
    yield Case("Same Twice", {"a.ipynb": good, "a-1.ipynb": good})
    yield Case("Two Versions", {"a.ipynb": good, "b.ipynb": notebook("@START@", SCALED)}, None, "differ")
    untouched = notebook(*STUBS, written=PLACE).replace(b"STUDENT = 0", b"STUDENT = 12")
    yield Case("Untouched Beside", {"a.ipynb": good, "given.ipynb": untouched})
    yield Case(
        "Other Assignment",
        {"a.ipynb": notebook("something_else = 1.0")},
        None,
        "answers assignment",
    )
    yield Case("Not Json", {"a.ipynb": b"{ this is not JSON"}, None, "not a notebook")
    yield Case("Empty File", {"a.ipynb": b""}, None, "is empty")
    yield Case("Photo Only", {"scan.pdf": b"%PDF-1.4"}, None, "no notebook")
    yield Case("No Names", {"a.ipynb": notebook("x = 1")}, None, "None of the asked names")
    yield Case(
        "Cells Are Numbers", {"a.ipynb": b'{"cells": [1, 2], "nbformat": 4, "metadata": {}}'}, None, "damaged"
    )
    yield one(
        "Untouched Student",
        "def scaled(z, s):\n    ...",
        "unit = None",
        points=0,
        trouble="not answered yet",
    )
    # names
    yield Case("Müller, Zoë", {"a.ipynb": good})
    yield Case("عمر الخيام", {"a.ipynb": good})
    yield Case("Ada 🦊 Lovelace", {"a.ipynb": good})
    yield Case(
        "<b>Bold & =1+1", {"a.ipynb": notebook("@START@", *ANSWERS, written="<script>alert(1)</script>")}
    )
    # what runs too long, too wide or not at all
    yield one("Much Output", "print('x' * 60_000_000)", *ANSWERS)
    yield one("Endless Loop", "while True: pass", *ANSWERS, trouble="more than")
    yield one(
        "Stubborn Loop",
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
        *ANSWERS,
        trouble="was stopped",  # by the alarm, if that falls between two tries, else with its process
    )
    yield one("Fork Bomb", BOMB, *ANSWERS, trouble="processes")
    yield one("Large Array", "import numpy; hoard = numpy.ones(10 * 2**27)", *ANSWERS, trouble="allocate")
    yield one("Hoarding Family", FAMILY, *ANSWERS, trouble="MB of memory")
    yield one(
        "Full Disk",
        "with open('/tmp/big', 'wb') as f:\n  while True: f.write(bytes(10**7))",
        *ANSWERS,
        trouble="space",
    )
    yield one("Sudden Exit", "import os; os._exit(0)", *ANSWERS, trouble="ended the process")
    yield one("Polite Exit", "import sys; sys.exit()", *ANSWERS, trouble="SystemExit")
    yield one("Syntax Error", "def scaled(z, s:", *ANSWERS, trouble="SyntaxError")
    yield one("Asks Input", "name = input()", *ANSWERS, trouble="EOFError")
    yield one(
        "Exit In Answer",
        "import os\ndef scaled(z, s): os._exit(0)",
        *ANSWERS[1:],
        points=12,
        trouble="ended",
    )
    yield one(
        "Loop In Answer",
        "def scaled(z, s):\n  while True: pass",
        *ANSWERS[1:],
        points=12,
        trouble="too long",
    )
    # what cheats
    for place in ("Rubric", "Neighbour", "Gradebook"):
        look = f'open(r"@{place.upper()}@").read()'
        yield one(f"Reads {place}", look, *ANSWERS, trouble="FileNotFoundError")
    yield one("Writes Outside", WRITES, *ANSWERS, trouble="Read-only")
    yield one(
        "Opens Socket",
        "import socket; socket.create_connection(('9.9.9.9', 53), 2)",
        *ANSWERS,
        trouble="unreachable",
    )
    patched = "import torch\ntorch.allclose = torch.equal = torch.Tensor.__eq__ = lambda *a, **k: True"
    yield one("Patches Torch", WRONG, patched, points=0)
    claims = "import flowlib.check\nflowlib.check.exercise = print\nPOINTS = points = score = 100"
    yield one("Patches Flowlib", WRONG, claims, points=0)
    forge = 'import json\njson.dumps = lambda *a, **k: \'{"reply": {"points": 100}}\''
    yield one("Patches Json", WRONG, forge, points=0, trouble="wrote into the line")
    yield one("Forges Replies", WRONG, FORGED, points=0, trouble="wrote into the line")
    agree = "class Yes:\n  def __eq__(self, other): return True\n  __lt__ = __gt__ = __le__ = __eq__\n"
    yield one("Always Equal", agree + "def unit(v): return Yes()", points=0, trouble="type Yes")
    # wrong answers
    yield one("Not A Number", "def unit(v): return [x * math.nan for x in v]", points=0, trouble="NaN")
    yield one("Infinite", "def unit(v): return [x * math.inf for x in v]", points=0, trouble="infinite")
    as_array = "import numpy\ndef unit(v): return numpy.array(v)"
    yield one("Wrong Shape", f"{as_array}[None] / 13", points=0, trouble="shape (1, 3)")
    yield one("Wrong Dtype", f"{as_array} / 13 + 0j", points=0, trouble="complex")
    yield one("Not Callable", "unit = 3", points=0, trouble="TypeError")
    yield one(
        "Wrong Sign", SCALED.replace("math.log", "-math.log"), points=4, trouble="sign is the other way"
    )
    yield one("Raises In Answer", "def unit(v): raise SystemExit('100 points')", SCALED, points=10)
    # student numbers
    for name, line, sentence in (
        ("Number Zero", "STUDENT = 0", "The student number is 0, as it was given out"),
        ("Leading Zero", "STUDENT = 0123456", "begins with 0, and Python does not read STUDENT = 0123456"),
        ("No Number", "", "There is no student number"),
        ("Number As List", "STUDENT = [1]", "There is no student number"),
    ):
        cells = [line, "import math", *ANSWERS]
        yield Case(name, {"a.ipynb": notebook(*cells)}, FULL, person=sentence)
    text = good.replace(b"@START@", b"import math\\nSTUDENT = '0123456'")
    yield Case("Digits As Text", {"a.ipynb": text})
    for which in ("One", "Two"):
        yield Case(f"Shared Number {which}", {"a.ipynb": good}, FULL, person="also given by", student=7)
