"""What makes the notebooks: the set-up cell and ``make notebooks``."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import notebooks, setup_cell

SETUP = "# Set-up: a small one for these tests.\nimport matplotlib.pyplot as plt"


@pytest.fixture(autouse=True)
def small_setup_cell(monkeypatch):
    """Spare the kernels of these tests the import of torch."""
    monkeypatch.setattr(setup_cell, "TEMPLATE", SETUP)


def write(folder, *cells, name="06_small.ipynb"):
    """A notebook as an editor may leave it: stale set-up cell, odd metadata, no outputs."""
    notebook = new_notebook(cells=[new_markdown_cell("# 6. Small"), new_code_cell("# Set-up: old"), *cells])
    notebook.metadata.update(widgets={"state": {}}, kernelspec={"name": "other", "display_name": "Other"})
    nbformat.write(notebook, folder / name)
    return folder / name


def test_a_second_run_gives_the_same_bytes(tmp_path):
    draws = "plt.plot([0, 1])\nprint('before')\nplt.show()\nprint('after', end=' ')\nprint('all')\n3"
    kept = {"tags": ["hide-cell"], "cellView": "form", "mystnb": {"image": {"alt": "a line"}}}
    dropped = {"execution": {"iopub.execute_input": "2020"}, "collapsed": False, "scrolled": True}
    path = write(
        tmp_path, new_code_cell(draws, metadata=kept | dropped), new_code_cell("1"), new_code_cell("1")
    )
    assert notebooks.refresh(path)
    first = path.read_bytes()
    assert not notebooks.refresh(path)
    assert path.read_bytes() == first
    assert [child.name for child in tmp_path.iterdir()] == [path.name]

    saved = json.loads(first)
    assert saved["metadata"] == notebooks.NOTEBOOK_METADATA
    _, setup, cell, *_ = saved["cells"]
    assert "".join(setup["source"]) == SETUP
    assert setup["metadata"] == {
        "cellView": "form",
        "jupyter": {"source_hidden": True},
        "tags": ["hide-input"],
    }
    assert cell["metadata"] == kept
    assert [cell["execution_count"] for cell in saved["cells"][1:]] == [1, 2, 3, 4]
    assert len({cell["id"] for cell in saved["cells"]}) == len(saved["cells"])
    kinds = [out.get("text") or sorted(out["data"]) for out in cell["outputs"]]
    assert kinds == [["before\n"], ["image/png", "text/plain"], ["after all\n"], ["text/plain"]]


def test_the_set_up_cell_alone_can_be_written(tmp_path, capsys):
    """After a change of version or address nothing has to run again."""
    (tmp_path / "assignments").mkdir()
    path, other = (
        write(tmp_path, new_code_cell("1 / 0")),
        write(tmp_path / "assignments", name="1_small.ipynb"),
    )
    old = nbformat.read(path, as_version=4)
    assert notebooks.main(["--set-up"], tmp_path) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"nbs/{name}: set-up cell written" for name in ("06_small.ipynb", "assignments/1_small.ipynb")
    ]
    new = nbformat.read(path, as_version=4)
    assert new.cells[1].source == nbformat.read(other, as_version=4).cells[1].source == SETUP
    assert new.cells[1].id != old.cells[1].id
    old.cells[1].source, old.cells[1].id = new.cells[1].source, new.cells[1].id
    assert new == old
    assert notebooks.main(["--set-up"], tmp_path) == 0
    assert not capsys.readouterr().out


def test_ids_survive_conversion_and_moving(tmp_path):
    notebook = new_notebook(cells=[new_markdown_cell("a"), new_code_cell("b"), new_code_cell("b")])
    notebooks.clean(notebook)
    ids = [cell.id for cell in notebook.cells]
    again = new_notebook(cells=[new_code_cell("b"), new_markdown_cell("a"), new_code_cell("b")])
    notebooks.clean(again)
    assert [again.cells[1].id, again.cells[0].id, again.cells[2].id] == ids


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "Cell 3 (“1 / 0”) failed with ZeroDivisionError: division by zero"),
        ("import sys\nprint('careful', file=sys.stderr)", "wrote to stderr: careful"),
        ("import warnings\nwarnings.warn('old')", "wrote to stderr"),
        ("", "was not run"),
        ("from IPython.display import clear_output\nclear_output()", "calls clear_output"),
        (
            "from IPython.display import display\nh = display(1, display_id=True)\nh.update(2)",
            "updates a display",
        ),
        ("from comm import create_comm\n_ = create_comm('widget')", "opens a widget"),
        (
            "from IPython.display import display\n"
            "display({'application/vnd.jupyter.widget-view+json': {}}, raw=True)",
            "shows a widget",
        ),
    ],
)
def test_what_may_not_be_saved_leaves_the_file_as_it_was(tmp_path, source, words):
    path = write(tmp_path, new_code_cell(source))
    before = path.read_bytes()
    with pytest.raises(notebooks.Refused) as refused:
        notebooks.refresh(path)
    assert words in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_a_notebook_without_set_up_cell_is_refused(tmp_path):
    path = tmp_path / "06_none.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 6"), new_code_cell("1")]), path)
    with pytest.raises(notebooks.Refused, match="The second cell must be the set-up cell"):
        notebooks.refresh(path)


def test_notebooks_are_found_by_number(tmp_path):
    for name in ("06_planar.ipynb", "07_coupling.ipynb"):
        write(tmp_path, name=name)
    names = [path.name for path in notebooks.find(["07", "nbs/06_planar.ipynb", "07"], tmp_path)]
    assert names == ["07_coupling.ipynb", "06_planar.ipynb"]
    assert len(notebooks.find([], tmp_path)) == 2
    with pytest.raises(notebooks.Refused, match="No notebook in nbs/ starts with “11”; there is 06, 07"):
        notebooks.find(["11"], tmp_path)
    assert notebooks.main(["11"], tmp_path) == 2


def test_the_command_names_what_it_refused(tmp_path, capsys):
    # stops before the kernel: a worker is a new process, which has the real set-up cell
    (tmp_path / "06_bad.ipynb").write_text(nbformat.writes(new_notebook(cells=[new_markdown_cell("# 6")])))
    assert notebooks.main(["06"], tmp_path) == 1
    captured = capsys.readouterr()
    assert "nbs/06_bad.ipynb: The second cell must be the set-up cell" in captured.err
    assert "The file was left as it was." in captured.err


def install(monkeypatch, has_flowlib, there, address="https://host/a/b"):
    """Run the cell's installing part where pip reaches these tags alone; return what pip was asked for."""
    monkeypatch.undo()
    source = setup_cell.source()
    assert f'REPO = "{setup_cell.repository()}"' in source
    part = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    asked = []

    def run(command, **options):
        assert "--no-deps" in command, "Colab's torch and numpy stay"
        assert options["start_new_session"], "without a terminal git cannot ask for a password"
        asked.append(command[-1])
        reached = command[-1].rpartition("@")[2] in there
        return subprocess.CompletedProcess(command, 0 if reached else 1, stderr=b"pip's own words")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if has_flowlib else None)
    names = {"importlib": importlib, "subprocess": subprocess, "sys": sys, "REPO": address}
    exec(compile(ast.Module([part], []), "set-up", "exec"), names)
    return asked


def test_the_set_up_cell_installs_only_where_flowlib_is_missing(monkeypatch, capsys):
    assert install(monkeypatch, True, []) == []
    assert not capsys.readouterr().out


def test_the_set_up_cell_takes_its_release_and_else_the_newest_state(monkeypatch, capsys):
    tag = setup_cell.release()
    release, newest = f"git+https://host/a/b@{tag}", "git+https://host/a/b@main"
    assert install(monkeypatch, False, [tag, "main"]) == [release]
    assert capsys.readouterr().out == f"flowlib is installed as it stands in {tag}.\n"
    assert install(monkeypatch, False, ["main"]) == [release, newest]
    assert capsys.readouterr().out == "flowlib is installed as it stands in main.\n"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://host/a/b", "See that https://host/a/b is public and online, and run this again."),
        (
            "https://github.com/YOUR_ACCOUNT/flows",
            "Set REPO, above, to your copy of the course, and run this again.",
        ),
    ],
)
def test_the_set_up_cell_says_what_to_do(monkeypatch, capsys, address, says):
    with pytest.raises(RuntimeError, match=f"^{re.escape(says)}$"):
        install(monkeypatch, False, [], address)
    assert "pip's own words" in capsys.readouterr().out
