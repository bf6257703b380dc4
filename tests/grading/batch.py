# ruff: noqa: E501  (students' cells, a line each)
"""Synthetic submissions of assignment 2: every fault that a hundred students bring, and what it must cost.

A case is a name, the file or files handed in, and either the points or a part of the sentence that sends it
to a person; ``trouble`` is a part of what the feedback page must say of a cell or a check.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

START = "import torch\ntorch.set_default_dtype(torch.float64)\nSTUDENT = {student}"
PLANAR = """def planar(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[:, None] * u, torch.log(torch.abs(1 + (1 - h**2) * (u @ w)))"""
CORRECTED = """def corrected(u, w):
    a = u @ w
    return u + (torch.nn.functional.softplus(a) - 1 - a) * w / (w @ w)"""
BEST = "def best_linear(x):\n    c = x.mean(0)\n    return torch.linalg.cholesky((x - c).T @ (x - c) / len(x)), c"
ANSWERS = (PLANAR, CORRECTED, BEST)
FULL, PLANAR_POINTS = 22, 10  # 10 + 6 + 6


@dataclass
class Case:
    """One student."""

    name: str
    files: dict[str, bytes]
    points: float | None = FULL
    person: str = ""
    trouble: str = ""
    student: int = field(default=0)


def notebook(*cells: str, written: str = "It is so.", **more: object) -> bytes:
    """A notebook as JupyterLab writes it."""
    markdown = {"cell_type": "markdown", "id": "w", "metadata": {}, "source": f"### Answer 2.1\n\n{written}"}
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
ANOTHER_WAY = """from torch.func import jacrev, vmap
def planar(points, w, u, b):
    f = lambda z: z + u * torch.tanh(torch.dot(w, z) + b)
    return vmap(f)(points), torch.stack([torch.linalg.slogdet(jacrev(f)(z)).logabsdet for z in points])"""
BOMB = """import os, time
for _ in range(9):  # 512 processes, no more
    try:
        os.fork()
    except OSError:
        pass
time.sleep(30)"""
WRONG_PLANAR = "def planar(z, w, u, b):\n    return z, z[:, 0]"
FORGED = """import os
line = b'{"reply": {"array": "AAAAAAAA8D8=", "dtype": "<f8", "shape": []}}\\n' * 50
print(line.decode())
for channel in range(3, 64):
    try:
        os.write(channel, line)
    except OSError:
        pass"""
LOOK_AROUND = """import glob
FOUND = glob.glob("/course/**/*rubric*", recursive=True) + glob.glob("/tmp/**/*.csv", recursive=True)
open("/course/../course/2_rubric.py")"""


def cases() -> Iterator[Case]:
    """Every case; each with a student number of its own."""
    for number, case in enumerate(_cases(), 101):
        case.student = case.student or number
        stamp = START.format(student=case.student)
        case.files = {
            name: data.replace(b"@START@", json.dumps(stamp)[1:-1].encode())
            for name, data in case.files.items()
        }
        yield case


def _cases() -> Iterator[Case]:
    good = notebook("@START@", *ANSWERS)

    def one(name: str, *cells: str, points: float = FULL, trouble: str = "") -> Case:
        return Case(name, {"work.ipynb": notebook("@START@", *cells)}, points, trouble=trouble)

    # how notebooks look when they come back
    yield Case("Perfect Student", {"2_likelihood.ipynb": good})
    yield one("Another Method", ANOTHER_WAY, CORRECTED, BEST)
    yield Case("Duplicated Ids", {"a.ipynb": changed(good, id="same")})
    yield Case("No Metadata", {"a.ipynb": changed(good, id=None, metadata=None, outputs=None)})
    yield Case("Reordered Cells", {"a.ipynb": notebook(BEST, PLANAR, "@START@", CORRECTED)})
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
    yield Case("Two Versions", {"a.ipynb": good, "b.ipynb": notebook("@START@", PLANAR)}, None, "differ")
    yield Case(
        "Other Assignment",
        {"a.ipynb": notebook("volume = 1.0", "def triangle_map(u, c): return u")},
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
        "def planar(z, w, u, b):\n    ...",
        "nll_floor = None",
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
    yield one("Large Array", "hoard = torch.ones(10 * 2**27)", *ANSWERS, trouble="allocate")
    yield one(
        "Full Disk",
        "with open('/tmp/big', 'wb') as f:\n  while True: f.write(bytes(10**7))",
        *ANSWERS,
        trouble="space",
    )
    yield one("Sudden Exit", "import os; os._exit(0)", *ANSWERS, trouble="ended the process")
    yield one("Polite Exit", "import sys; sys.exit()", *ANSWERS, trouble="SystemExit")
    yield one("Syntax Error", "def planar(z, w:", *ANSWERS, trouble="SyntaxError")
    yield one("Asks Input", "name = input()", *ANSWERS, trouble="EOFError")
    yield one(
        "Exit In Answer",
        "import os\ndef planar(z, w, u, b): os._exit(0)",
        *ANSWERS[1:],
        points=12,
        trouble="ended",
    )
    yield one(
        "Loop In Answer",
        "def planar(z, w, u, b):\n  while True: pass",
        *ANSWERS[1:],
        points=12,
        trouble="too long",
    )
    # what cheats
    yield one("Reads Rubric", LOOK_AROUND, *ANSWERS, trouble="FileNotFoundError")
    yield one("Writes Outside", "open('/usr/hello', 'w')", *ANSWERS, trouble="Read-only")
    yield one(
        "Opens Socket",
        "import socket; socket.create_connection(('9.9.9.9', 53), 2)",
        *ANSWERS,
        trouble="unreachable",
    )
    patched = "torch.allclose = torch.equal = torch.Tensor.__eq__ = lambda *a, **k: True"
    yield one("Patches Torch", WRONG_PLANAR, patched, points=0)
    claims = "import flowlib.check\nflowlib.check.exercise = print\nPOINTS = points = score = 100"
    yield one("Patches Flowlib", WRONG_PLANAR, claims, points=0)
    forge = 'import json\njson.dumps = lambda *a, **k: \'{"reply": {"points": 100}}\''
    yield one("Patches Json", WRONG_PLANAR, forge, points=0)
    yield one("Forges Replies", WRONG_PLANAR, FORGED, points=0)
    agree = "class Yes:\n  def __eq__(self, other): return True\n  __lt__ = __gt__ = __le__ = __eq__\n"
    yield one("Always Equal", agree + "def corrected(u, w): return Yes()", points=0, trouble="type Yes")
    # wrong answers
    yield one("Not A Number", "def corrected(u, w): return u / 0 * 0", points=0, trouble="NaN")
    yield one("Infinite", "def corrected(u, w): return u / 0", points=0, trouble="infinite")
    yield one("Wrong Shape", "def corrected(u, w): return u[None]", points=0, trouble="shape (1, 3)")
    yield one("Wrong Dtype", CORRECTED.replace("return u +", "return 1j * u +"), points=0, trouble="complex")
    yield one("Not Callable", "corrected = 3", points=0, trouble="TypeError")
    yield one(
        "Wrong Sign", PLANAR.replace("torch.log(", "-torch.log("), points=4, trouble="sign is the other way"
    )
    yield one("Raises In Answer", "def corrected(u, w): raise SystemExit('100 points')", PLANAR, points=10)
    same = Case("Shared Number One", {"a.ipynb": good}, FULL, person="also given by", student=7)
    yield same
    yield Case("Shared Number Two", {"a.ipynb": good}, FULL, person="also given by", student=7)
