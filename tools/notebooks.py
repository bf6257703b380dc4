"""Re-execute notebooks and save their outputs: ``python -m tools.notebooks [06 07 labs …]``.

``python -m tools.notebooks --set-up`` writes today's set-up cell into all of them, assignments included,
and leaves the rest as it is, outputs too: after a change of version, of address or of that cell.

A notebook is saved only if every cell ran, none failed, and none wrote to stderr; otherwise the
file stays as it was. What is saved holds nothing that changes from run to run, so a second run
gives the same bytes.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from tools import setup_cell

LECTURES = setup_cell.ROOT / "nbs"
LABS = "labs"  # a folder beside the lectures

# One thread each, because two busy cores with two threads apiece are many times slower; no
# progress bars, because they write times to stderr; figures go into the notebook. No GPU, on which
# a lab would train for an hour, and whose last digits vary.
KERNEL_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}

KEPT_CELL_METADATA = ("cellView", "jupyter", "mystnb", "tags")
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

SECONDS_PER_CELL = 600

# These change an output after it was made, or need a running kernel: a page cannot show them.
FORBIDDEN_MESSAGES = {
    "clear_output": "calls clear_output",
    "update_display_data": "updates a display it made before (update_display)",
    "comm_open": "opens a widget",
}


class Refused(Exception):
    """A notebook that may not be saved; the message says which cell and why."""


class Client(NotebookClient):
    """Executes a notebook and notes the messages that no static page can show."""

    forbidden: str | None = None

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        if what := FORBIDDEN_MESSAGES.get(msg["msg_type"]):
            self.forbidden = f"{_where(cell, cell_index)} {what}; print or draw the final state instead."
        return super().process_message(msg, cell, cell_index)


def refresh_setup_cell(notebook: NotebookNode) -> None:
    """Give the notebook's second cell the current text of the set-up cell."""
    cells = notebook.cells
    if len(cells) < 2 or not setup_cell.is_setup(cells[1]):
        raise Refused(
            "The second cell must be the set-up cell: a code cell that starts with "
            f"“{setup_cell.FIRST_LINE}” (tools/setup_cell.py has the text)."
        )
    setup_cell.write(cells[1])


def write_set_up(path: Path) -> bool:
    """Give one notebook today's set-up cell and change nothing else; return whether its bytes changed."""
    notebook = nbformat.read(path, as_version=4)
    for cell in filter(setup_cell.is_setup, notebook.cells):
        cell.source = setup_cell.source()
        cell.id = _name(cell, {other.id for other in notebook.cells if other is not cell})
    return _save(notebook, path)


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run every code cell in a new kernel whose working directory is ``folder``."""
    client = Client(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # the kernel's own warnings are about the machine
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env=os.environ | KERNEL_ENVIRONMENT)
    except CellExecutionError as error:
        raise Refused(_failure(notebook, error)) from None
    except CellTimeoutError as error:
        raise Refused(f"A cell ran for more than {SECONDS_PER_CELL} s. {error}") from None
    except DeadKernelError as error:
        raise Refused(f"The kernel died: {error}") from None
    if client.forbidden:
        raise Refused(client.forbidden)


def inspect(notebook: NotebookNode) -> None:
    """Refuse cells that did not run, wrote to stderr, failed, or show a widget."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        where = _where(cell, index)
        if cell.execution_count is None:
            raise Refused(f"{where} was not run; delete it if it is empty.")
        for output in cell.outputs:
            if output.output_type == "error":
                raise Refused(f"{where} failed with {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                raise Refused(f"{where} wrote to stderr: {output.text.strip()[:400]}")
            if widget := [kind for kind in output.get("data", {}) if "widget" in kind]:
                raise Refused(f"{where} shows a widget ({widget[0]}), which no page can show.")


def clean(notebook: NotebookNode) -> None:
    """Keep only what is the same on every run: no times, versions, widget state or random ids."""
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    names: set[str] = set()
    count = 0
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)
        cell.pop("attachments", None)
        cell.id = _name(cell, names)
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _merged(cell.outputs)
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = NotebookNode()
                if "execution_count" in output:
                    output.execution_count = count


def refresh(path: Path) -> bool:
    """Execute one notebook and save it; return whether its bytes changed."""
    notebook = nbformat.read(path, as_version=4)
    refresh_setup_cell(notebook)
    execute(notebook, path.parent)
    inspect(notebook)
    clean(notebook)
    return _save(notebook, path)


def _save(notebook: NotebookNode, path: Path) -> bool:
    nbformat.validate(notebook)
    new = (nbformat.writes(notebook).rstrip("\n") + "\n").encode()
    if new == path.read_bytes():
        return False
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(new)
    os.replace(partial, path)  # all or nothing: a reader never sees half a notebook
    return True


def find(names: list[str], folder: Path = LECTURES) -> list[Path]:
    """Return the lectures with the given numbers, and for ``labs`` the labs; all for none."""
    notebooks = {path.name: path for path in sorted(folder.glob("*.ipynb"))}
    notebooks |= {f"{LABS}/{path.name}": path for path in sorted((folder / LABS).glob("*.ipynb"))}
    if not names:
        return list(notebooks.values())
    chosen = []
    for name in names:
        start = name.rpartition("nbs/")[2].removesuffix(".ipynb")
        found = [path for place, path in notebooks.items() if place.startswith(start)]
        if not found:
            have = ", ".join(dict.fromkeys(place[:2] if place[0].isdigit() else LABS for place in notebooks))
            raise Refused(f"No notebook in nbs/ starts with “{name}”; there is {have or 'none'}.")
        chosen += [path for path in found if path not in chosen]
    return chosen


def main(names: list[str], folder: Path = LECTURES) -> int:
    """Refresh the named notebooks, two at a time; return the exit status."""
    if names == ["--set-up"]:
        for path in sorted(folder.rglob("*.ipynb")):
            if write_set_up(path):
                print(f"nbs/{path.relative_to(folder).as_posix()}: set-up cell written")
        return 0
    try:
        paths = find(names, folder)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    failed = 0
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=2, mp_context=spawn) as pool:
        started = time.monotonic()
        jobs = {pool.submit(refresh, path): path for path in paths}
        for job in as_completed(jobs):
            name = f"nbs/{jobs[job].relative_to(folder).as_posix()}"
            try:
                state = "saved" if job.result() else "unchanged"
                print(f"{name}: {state} after {time.monotonic() - started:.0f} s", flush=True)
            except Refused as refused:
                failed += 1
                print(f"{name}: {refused}\nThe file was left as it was.", file=sys.stderr, flush=True)
    return 1 if failed else 0


def _where(cell: NotebookNode, index: int) -> str:
    first = cell.source.strip().split("\n")[0][:60]
    return f"Cell {index + 1} (“{first}”)"


def _failure(notebook: NotebookNode, error: CellExecutionError) -> str:
    """The failing cell, the error, and the end of the traceback without its colours."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
                tail = "\n".join(plain.splitlines()[-25:])
                return f"{_where(cell, index)} failed with {output.ename}: {output.evalue}\n{tail}"
    return str(error)


def _name(cell: NotebookNode, taken: set[str]) -> str:
    """An id from the cell's own text: it survives inserting and moving cells, and conversion."""
    digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
    name, copy = digest, 1
    while name in taken:
        copy += 1
        name = f"{digest}-{copy}"
    taken.add(name)
    return name


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: how a stream was cut depends on timing."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
