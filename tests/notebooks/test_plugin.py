"""The plugin passes what another processor may change, and fails what an author may break."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from tests.notebooks.compare import text_problem
from tools.notebooks import KERNEL_ENVIRONMENT
from tools.setup_cell import ROOT

FIGURE = """\
figure, ax = plt.subplots()
ax.plot([0, 1, 2], [0.0, 1.0, {last}], color="{colour}")
ax.set_title("{title}")
plt.show()"""
DRAWN = FIGURE.format(last=0.5, colour="C0", title="Loss")

# name: (what the cell runs, what it ran when the reference was made)
CELLS = {
    "start": ("import matplotlib.pyplot as plt\nprint('ready')", None),
    "unchanged": ("print('loss 1.234')\n{'d': 2}", None),
    "last digit": ("print('loss 1.235')", "print('loss 1.234')"),
    "figure unchanged": (DRAWN, None),
    "figure moved by 1e-4": (FIGURE.format(last=0.50005, colour="C0", title="Loss"), DRAWN),
    "print around a figure": (f"print('before')\n{DRAWN}\nprint('after')", None),
    "CHANGED number": ("print('steps done\\nloss 1.334')", "print('steps done\\nloss 1.234')"),
    "CHANGED formula": ("f'{2.0**3:.3f}'", "f'{2.0**3.01:.3f}'"),
    "CHANGED whole number": ("3 + 4", "3 + 5"),
    "CHANGED text": ("print('diverged: yes')", "print('diverged: no')"),
    "CHANGED bound": ("print('✓ (6.3) to within 2e-10')", "print('✓ (6.3) to within 1e-10')"),
    "CHANGED colour": (FIGURE.format(last=0.5, colour="C1", title="Loss"), DRAWN),
    "CHANGED title": (FIGURE.format(last=0.5, colour="C0", title="Gain"), DRAWN),
    "CHANGED data": (FIGURE.format(last=0.4, colour="C0", title="Loss"), DRAWN),
    "CHANGED size": (DRAWN.replace("()", "(figsize=(3, 2))", 1), DRAWN),
    "MISSING line": ("print('one')", "print('one\\ntwo')"),
    "MISSING output": ("x = 1", "print('one')"),
    "MISSING figure": ("figure = None", DRAWN),
    "EXTRA output": ("print('one')", "x = 1"),
    "EXTRA figure": (f"{DRAWN}\n{DRAWN}", DRAWN),
    "EXTRA stderr": ("import sys\nprint('warned', file=sys.stderr)", "import sys"),
    "UNRUN": ("x = 2", None),
    "FAILING": ("1 / 0", "0 / 1"),
    "after the failure": ("x", None),
}


def executed(sources: list[str], folder: Path) -> list[NotebookNode]:
    """Run code cells and return them with their outputs."""
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute(env=os.environ | KERNEL_ENVIRONMENT)
    return notebook.cells


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the notebooks of a folder under the plugin, as the Makefile does."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.notebooks.plugin", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, "--nbval", "--nbval-current-env", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, str]:
    """What became of each cell: the failure's message, "passed" or "skipped: …"."""
    folder = tmp_path_factory.mktemp("plugin")
    cells = executed([before or now for now, before in CELLS.values()], folder)
    for cell, (now, _) in zip(cells, CELLS.values(), strict=True):
        cell.source = now
    unrun = cells[list(CELLS).index("UNRUN")]
    unrun.execution_count, unrun.outputs = None, []
    nbformat.write(new_notebook(cells=cells), folder / "cases.ipynb")
    run_pytest(folder, "--junitxml=report.xml")
    report = ElementTree.parse(folder / "report.xml")
    found = {"folder": str(folder)}
    for name, case in zip(CELLS, report.iter("testcase"), strict=True):
        outcome = next(iter(case), None)
        text = "" if outcome is None else (outcome.text or "") + outcome.get("message", "")
        found[name] = "passed" if outcome is None else f"{outcome.tag}: {text}"
    return found


@pytest.mark.parametrize(
    "name", [name for name in CELLS if name[:2].islower() and name != "after the failure"]
)
def test_passes_what_may_differ(outcomes, name):
    assert outcomes[name] == "passed"


@pytest.mark.parametrize("name", [name for name in CELLS if name[:2].isupper()])
def test_fails_what_may_not(outcomes, name):
    assert outcomes[name].startswith("failure: cases.ipynb, code cell"), outcomes[name]
    assert "make notebooks" in outcomes[name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "CHANGED number",
            ["line 2", "1.234 became 1.334", "reference: loss 1.234", "now:       loss 1.334"],
        ),
        ("CHANGED whole number", ["text/plain", "8 became 7, and whole numbers must be equal"]),
        ("CHANGED text", ["stdout", "the text changed", "diverged: no", "diverged: yes"]),
        ("CHANGED size", ["pixels and is"]),
        ("MISSING line", ["line 2 is missing"]),
        ("MISSING output", ["stdout: the reference has 1 and there are 0 now"]),
        ("MISSING figure", ["image/png: the reference has 1 and there are 0 now"]),
        ("EXTRA figure", ["image/png: the reference has 1 and there are 2 now"]),
        ("EXTRA stderr", ["stderr: the reference has 0 and there are 1 now", "warned"]),
        ("UNRUN", ["Was never run"]),
        ("FAILING", ["ZeroDivisionError"]),
    ],
)
def test_messages_say_what_changed(outcomes, name, words):
    for word in words:
        assert word in outcomes[name]


@pytest.mark.parametrize("name", ["CHANGED colour", "CHANGED title", "CHANGED data", "CHANGED size"])
def test_both_figures_are_saved_side_by_side(outcomes, name):
    number = list(CELLS).index(name) + 1
    saved = Path(outcomes["folder"], "_build", "nbval", "cases", f"cell_{number:02d}_figure_1.png")
    assert str(saved) in outcomes[name]
    with Image.open(saved) as sheet:
        assert sheet.width > sheet.height
    assert not saved.with_name("cell_04_figure_1.png").exists(), "an unchanged figure was saved"


def test_cells_after_a_failure_are_not_run(outcomes):
    number = list(CELLS).index("FAILING") + 1
    assert outcomes["after the failure"].startswith("skipped")
    assert f"code cell {number} of this notebook failed" in outcomes["after the failure"]


def test_two_workers_keep_each_notebook_on_one_kernel(tmp_path):
    for name in ("a", "b", "c"):
        cells = executed([f"x = ['{name}']", "x += x", "x", "len(x)"], tmp_path)
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    run = run_pytest(tmp_path, "-n", "2", "-W", "error")
    assert "12 passed" in run.stdout, run.stdout + run.stderr
    assert "slowest of 3 files" in run.stdout
    assert re.search(r"^ +\d+\.\d s  a\.ipynb$", run.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("reference", "now"),
    [
        ("loss 1.2340", "loss 1.2341"),
        ("1234.5678", "1234.9"),
        ("[ 0.0001, 2.]", "[-0.0000, 2.]"),
        ("9.999 nats", "10.000 nats"),
        ("1.52e-03", "1.53e-03"),
        ("tensor([1., 2.])", "tensor([1.0000, 2.0001])"),
        ("nan and inf", "nan and inf"),
    ],
)
def test_numbers_within_tolerance(reference, now):
    assert text_problem(reference, now) is None
    assert text_problem(now, reference) is None


@pytest.mark.parametrize(
    ("reference", "now"),
    [
        ("loss 1.2340", "loss 1.2370"),
        ("K = 8", "K = 9"),
        ("tensor([1.])", "tensor([2.])"),
        ("1e-10", "2e-10"),
        ("0.5", "-0.5"),
        ("nan", "1.0"),
        ("inf", "-inf"),
        ("a b", "a  b"),
        ("1 2", "1 2 3"),
        ("p_X(4) = 1/8", "p_X(4) = 1/2"),
        ("one", "one\ntwo"),
    ],
)
def test_numbers_out_of_tolerance(reference, now):
    assert text_problem(reference, now)
    assert text_problem(now, reference)
