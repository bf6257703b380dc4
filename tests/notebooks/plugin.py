"""A pytest plugin on nbval: re-executes the notebooks and holds them to their reference outputs.

nbval compares text exactly, skips figures, and passes cells that were never run. Here text is
compared with a tolerance for numbers, figures as pictures, and a cell without a reference
fails. Under ``-n 2`` the cells of one notebook stay together on one worker and its kernel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, NbCellError
from xdist.scheduler import LoadScopeScheduling

from tests.notebooks.compare import figure_problem, text_problem
from tools.notebooks import KERNEL_ENVIRONMENT, LABS

SAVED = Path("_build", "nbval")
OUTPUTS_DIFFER = "Cell outputs differ"  # nbval's words
BOOK = "tests/book/"
SLOWEST = 20  # files that the end of a run names


def pytest_configure(config: pytest.Config) -> None:
    """Forget the figures of the last run, once: workers have ``workerinput``."""
    if config.option.nbval and not hasattr(config, "workerinput"):
        shutil.rmtree(config.rootpath / SAVED, ignore_errors=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Turn nbval's cells into ours."""
    if isinstance(item, IPyNbCell):
        item.__class__ = Cell


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what takes long first, so that no worker is left with it at the end."""

    def order(item: pytest.Item) -> tuple[bool, bool, bool]:
        return scope(item.nodeid) != BOOK, not isinstance(item, Cell), scope(item.nodeid) == item.nodeid

    items.sort(key=order)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Distribute the tests to the workers of ``-n``."""
    config.option.loadscopereorder = False  # keep the order above
    return Scheduling(config, log)


class Scheduling(LoadScopeScheduling):
    """Keeps a notebook, and what shares a slow start such as the visits to all pages, on one worker.

    ``--dist loadgroup`` would do, but pytest-xdist 3.8 silently ignores groups on pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def scope(nodeid: str) -> str:
    """All tests of one scope go to one worker; a scope of one test goes to whoever is free."""
    file = nodeid.partition("::")[0]
    if file.startswith(BOOK):
        return BOOK
    return file if file.endswith(".ipynb") or file.startswith("tests/notebooks/") else nodeid


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end which files took how long, their tests' set-up included."""
    seconds: dict[str, float] = defaultdict(float)
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.partition("::")[0]] += report.duration
    total = sum(seconds.values())
    terminalreporter.section(f"slowest of {len(seconds)} files, which took {total:.0f} s in all")
    for file in sorted(seconds, key=lambda file: -seconds[file])[:SLOWEST]:
        terminalreporter.line(f"{seconds[file]:6.1f} s  {file}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Start kernels, which are set up with a notebook's first cell, in the same environment."""
    if not isinstance(item, Cell):  # patch.dict would also take back what fixtures set
        return (yield)
    with mock.patch.dict(os.environ, KERNEL_ENVIRONMENT):
        return (yield)


class Cell(IPyNbCell):
    """A code cell with its reference outputs."""

    def runtest(self) -> None:
        if failed := getattr(self.parent, "failed_cell", None):
            pytest.skip(f"not run, because code cell {failed} of this notebook failed")
        try:
            super().runtest()
        except Exception as error:
            if str(error) != OUTPUTS_DIFFER:  # what follows would only fail for want of this cell
                self.parent.failed_cell = self.cell_num + 1
            raise
        if self.cell.execution_count is None:
            self.raise_cell_error("Was never run, so it has no reference outputs")

    def compare_outputs(
        self, test: list[NotebookNode], ref: list[NotebookNode], skip_compare: tuple[str, ...] | None = None
    ) -> bool:
        """Compare like with like, in order: the first text with the first, and so on."""
        now, reference = _by_kind(test), _by_kind(ref)
        self.comparison_traceback = list(self._problems(reference, now))
        return not self.comparison_traceback

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
        """Say which cell, what was expected and what came, then the cell's source."""
        error = excinfo.value
        if not isinstance(error, NbCellError):
            return super().repr_failure(excinfo)
        detail = re.sub(r"\x1b\[[0-9;]*m", "", error.inner_traceback or "").strip()
        name = self.path.parent.name if self.path.parent.name == LABS else self.path.name[:2]
        advice = f"If the change is right: make notebooks NB={name}"
        title = f"{self.path.name}, code cell {self.cell_num + 1}: {error}"
        return "\n\n".join(part for part in (title, detail, advice, _indented(self.cell.source)) if part)

    def _problems(self, reference: dict[str, list[str]], now: dict[str, list[str]]) -> Iterator[str]:
        for kind in sorted(reference | now):
            olds, news = reference.get(kind, []), now.get(kind, [])
            if len(olds) != len(news):
                yield f"{kind}: the reference has {len(olds)} and there are {len(news)} now."
                yield from (_indented(text) for text in news or olds if not kind.startswith("image/"))
                continue
            for count, (old, new) in enumerate(zip(olds, news, strict=True), 1):
                if kind in ("image/png", "image/jpeg"):
                    name = f"cell_{self.cell_num + 1:02d}_figure_{count}.png"
                    problem = figure_problem(old, new, self.config.rootpath / SAVED / self.path.stem / name)
                else:
                    problem = text_problem(old, new)
                if problem:
                    yield f"{kind} {count} of {len(olds)}, {problem}"


def _by_kind(outputs: list[NotebookNode]) -> dict[str, list[str]]:
    """Sort what a cell showed by kind: stdout, stderr, and each MIME type."""
    kinds = defaultdict(list)
    for output in outputs:
        if output.output_type == "stream":
            kinds[output.name].append(output.text)
        for kind, value in output.get("data", {}).items():
            kinds[kind].append(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
    return kinds


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
