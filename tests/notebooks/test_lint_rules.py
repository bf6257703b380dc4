"""Every rule of the lint can fail: a small lecture that keeps them all is spoilt in one place."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import setup_cell
from tools.formulas import formulas
from tools.lint import (
    RULES,
    Lecture,
    cells,
    folds,
    form,
    plan,
    text,
)
from tools.notebooks import clean

TITLE = """\
# 6. Planar flows

*You need:* lecture 5. *Time:* 60 minutes on a CPU. *Slides covered:* deck A, "Planar flows".

After this lecture you can

1. prove one thing;
2. check another;
3. draw a third."""

FORMULA = """\
## The layer

See [this section](#the-layer) and [the syllabus](../book/syllabus.md).

$$
x = z + u \\, h(w^\\top z + b) \\tag{6.1}
$$"""

EXERCISES = """\
## Exercises

**6.1** (derivation, 5 minutes, easy). Show one thing.

<details><summary>Solution 6.1</summary>

Because it is so.

</details>

**6.2** (derivation, 15 minutes, hard). Show another.

<details><summary>Solution 6.2</summary>

In the same way.

</details>

**6.3** (write this layer yourself, 10 minutes, medium). Judged by what it does."""

ANOTHER = """\
**6.5** (code, 5 minutes, easy). In words.

<details><summary>Solution 6.5</summary>

Yes.

</details>"""

END = """\
## Recap

1. Proved. 2. Checked. 3. Drawn.

## References

- D. Rezende and S. Mohamed (2015). [arXiv:1505.05770](https://arxiv.org/abs/1505.05770)"""

FOLDED = {"tags": ["hide-input"], "cellView": "form", "jupyter": {"source_hidden": True}}
HIDDEN = FOLDED | {"tags": ["hide-cell"]}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def code(source: str, printed: str = "", **metadata) -> NotebookNode:
    outputs = [new_output("stream", name="stdout", text=printed)] if printed else []
    return new_code_cell(source, execution_count=1, outputs=outputs, metadata=metadata)


def check_cell(source: str, printed: str) -> NotebookNode:
    return code(f"# @title Check (6.1)\n{source}", printed, **FOLDED)


def coded_exercise(name: str) -> list[NotebookNode]:
    call = f'check.exercise("{name}", answer, 2.0)'
    stub = code(f"answer = None  # your code\n{call}", f"… exercise {name}: not answered yet\n")
    solution = f"# @title Solution {name}\nanswer = 2.0\n{call}"
    return [stub, code(solution, f"✓ exercise {name}: correct\n", **HIDDEN)]


def good_cells() -> list[NotebookNode]:
    picture = code(
        "figure, ax = plt.subplots()\nplt.show()", mystnb={"image": {"alt": "A round cloud. " * 4}}
    )
    picture.outputs = [new_output("display_data", {"image/png": PIXEL})]
    return [
        new_markdown_cell(TITLE),
        code(setup_cell.source(), **FOLDED),
        new_markdown_cell(FORMULA),
        check_cell(
            'check.identity("6.1", a, b, says="it holds")', "✓ (6.1) it holds: equal to within 1e-10\n"
        ),
        check_cell('check.at_most("6.1b", a, 1, says="small")', "✓ (6.1b) small: at most 1\n"),
        picture,
        *[new_markdown_cell("A sentence about flows, to be read. " * 30) for _ in range(9)],
        new_markdown_cell(EXERCISES),
        *coded_exercise("6.3"),
        new_markdown_cell("**6.4** (predict, then run, 10 minutes, medium). Say first.\n\n" + ANOTHER),
        *coded_exercise("6.4"),
        new_markdown_cell(END),
    ]


def lecture(tmp_path: Path, notebook_cells: list[NotebookNode]) -> Lecture:
    """Write the cells where a lecture would lie; the counts run from 1."""
    notebook = new_notebook(cells=copy.deepcopy(notebook_cells))
    clean(notebook)
    path = tmp_path / "nbs" / "06_planar_flows.ipynb"
    path.parent.mkdir(exist_ok=True)
    (tmp_path / "book").mkdir(exist_ok=True)
    (tmp_path / "book" / "syllabus.md").write_text("# Syllabus\n\n(assign)=\n## For teachers\n")
    nbformat.write(notebook, path)
    return Lecture(path)


def change(index: int, old: str, new: str) -> Callable[[list[NotebookNode]], None]:
    """Replace words in a cell's source."""

    def apply(good: list[NotebookNode]) -> None:
        assert old in good[index].source
        good[index].source = good[index].source.replace(old, new)

    return apply


def output(index: int, *arguments, **fields) -> Callable[[list[NotebookNode]], None]:
    """Replace a cell's outputs by one."""
    return lambda good: good[index].update(outputs=[new_output(*arguments, **fields)])


def metadata(index: int, **changes) -> Callable[[list[NotebookNode]], None]:
    return lambda good: good[index].metadata.update(changes)


def insert(index: int, cell: NotebookNode) -> Callable[[list[NotebookNode]], None]:
    return lambda good: good.insert(index, cell)


def remove(index: int) -> Callable[[list[NotebookNode]], None]:
    return lambda good: good.pop(index)


TAGGED = "$$\nx \\tag{6.%s}\n$$"
FOLD, STUB, SOLUTION, LAST = 15, 16, 17, -1

BROKEN = [
    (
        cells.clean_outputs,
        output(3, "error", ename="ValueError", evalue="", traceback=[]),
        "failed with ValueError",
    ),
    (cells.clean_outputs, output(3, "stream", name="stderr", text="careful"), "wrote to stderr: careful"),
    (cells.clean_outputs, output(3, "display_data", {"application/x-widget": ""}), "shows a widget"),
    (cells.same_setup_cell, change(1, "manual_seed(0)", "manual_seed(1)"), "not the set-up cell"),
    (cells.same_setup_cell, insert(1, new_markdown_cell("Welcome.")), "not the set-up cell"),
    (cells.same_setup_cell, insert(4, code(setup_cell.source())), "second set-up cell"),
    (cells.every_formula_checked, remove(3), "Formula (6.1) has no check"),
    (cells.every_formula_checked, remove(3), "though (6.1) itself has no check"),
    (cells.every_formula_checked, remove(2), "no formula (6.1)"),
    (cells.every_formula_checked, insert(5, new_markdown_cell(TAGGED % 2)), "Formula (6.2) has no check"),
    (cells.every_formula_checked, insert(5, new_markdown_cell(TAGGED % 3)), "comes where (6.2) is next"),
    (cells.every_formula_checked, change(2, "6.1}", "7.1}"), "comes where (6.1) is next"),
    (cells.every_formula_checked, change(2, "$$", ""), "outside a $$…$$ formula"),
    (cells.every_formula_checked, change(4, '"6.1b"', '"6.1"'), "is checked 2 times"),
    (cells.every_formula_checked, change(3, '"6.1"', '"6.9"'), "no formula (6.9)"),
    (
        cells.every_formula_checked,
        change(3, "says=", "**says)\nprint(1)  # "),
        "must be the cell's last statement",
    ),
    (cells.every_formula_checked, change(3, "check.", "if a:\n    check."), "must stand at the top level"),
    (cells.every_formula_checked, change(3, '"6.1"', "tag"), "its tag a plain string"),
    (cells.every_formula_checked, output(3, "stream", name="stdout", text="fine"), "left no ✓ line"),
    (cells.every_formula_checked, lambda good: good.insert(5, good.pop(2)), "above the formula"),
    (plan.planned, change(0, "# 6.", "# 7."), "must open with the title"),
    (plan.planned, change(0, "You need", "Bring"), "does not say what the reader needs"),
    (plan.planned, change(0, "60 minutes", "an hour"), "does not say the time"),
    (plan.planned, change(0, "CPU", "laptop"), "does not say CPU or GPU"),
    (plan.planned, change(0, "Slides", "Pages"), "does not say the slides"),
    (plan.planned, change(0, "3. draw", "and draw"), "lists 2 objectives"),
    (plan.planned, change(LAST, "## Recap", "## Summary"), "Exercises, Recap and References"),
    (plan.right_length, insert(5, new_markdown_cell("word " * 3000)), "words; it should"),
    (plan.right_length, lambda good: good.__delitem__(slice(6, 15)), "words; it should"),
    (
        form.few_cells,
        lambda good: good.extend(new_markdown_cell("A word.") for _ in range(19)),
        "has 41 cells; it should",
    ),
    (form.short_lines, insert(4, code("x" * 79)), "a line has 79 characters"),
    (form.exercises_of_each_kind, change(FOLD, "**6.2**", "6.2"), "There are 4 exercises"),
    (form.exercises_of_each_kind, change(FOLD, "derivation, 5", "code, 5"), "1 exercises say “derivation”"),
    (form.exercises_of_each_kind, change(FOLD, "write this layer", "code"), "0 exercises say “write this"),
    (form.exercises_of_each_kind, change(18, "predict, then run", "code"), "0 exercises say “predict, then"),
    *[
        (form.one_notation, insert(3, new_markdown_cell(f"Then ${written}$ falls.")), instead)
        for written, instead in [
            (r"E_{p_d}[x]", r"the course writes p_{\text{data}}"),
            (r"P_{\text{data}}(x)", r"the course writes p_{\text{data}}"),
            (r"\hat R(w)", r"the course writes \hat R(\theta)"),
            (r"\hat R(\mathbf{w})", r"the course writes \hat R(\theta)"),
            (r"f_{\mathbf w}^{-1}(x)", r"the course writes \theta"),
            (r"-\log p_w(x)", r"the course writes \theta"),
            (r"\det|\nabla f|", "with the bars outside"),
            (r"\det\left|J\right|", "with the bars outside"),
            (r"\mathrm{CDF}_x(a)", "the course writes F_X"),
            (r"\mathbb D", r"the course writes \mathcal D"),
        ]
    ],
    (folds.folded, metadata(3, tags=[]), "needs the tag hide-input"),
    (folds.folded, metadata(3, tags=["hide-cell"]), "needs the tag hide-input"),
    (folds.folded, metadata(3, cellView=""), "cellView form"),
    (folds.folded, metadata(3, jupyter={}), "jupyter.source_hidden"),
    (folds.folded, metadata(SOLUTION, tags=[]), "needs the tag hide-cell"),
    (folds.folded, metadata(5, cellView="form"), "its first line must be # @title and one of Check, Figure"),
    (folds.folded, insert(4, code("# @title Plots: all", **FOLDED)), "its first line must be # @title"),
    (folds.folded, insert(4, code("# @title Figure: a cloud")), "needs the tag hide-input"),
    (folds.checks_folded, metadata(1, tags=[]), "The set-up cell is not folded"),
    (folds.checks_folded, change(3, "# @title Check (6.1)\n", ""), "it must be a cell of its own"),
    (folds.checks_folded, change(3, "Check (6.1)", "Check (6.2)"), "checks (6.1), and its title must name"),
    (folds.checks_folded, change(3, "Check (6.1)", "Check (6.1), (6.2)"), "and its title must name"),
    (folds.checks_folded, change(3, "Check (6.1)", "Check (6.1) to (6.3)"), "and its title must name"),
    (plan.small, output(3, "stream", name="stdout", text="x" * 1_600_000), "bytes; at most"),
    (plan.figures_described, metadata(5, mystnb={}), "alt text is “”"),
    (plan.figures_described, metadata(5, mystnb={"image": {"alt": "A plot."}}), "alt text is “A plot.”"),
    (plan.exercises_solved, change(FOLD, "Solution 6.2", "Hint 6.2"), "Exercise 6.2 has no solution"),
    (plan.exercises_solved, change(FOLD, "5 minutes, easy", "easy"), "Exercise 6.1 must state its minutes"),
    (
        plan.exercises_solved,
        change(FOLD, "15 minutes, hard", "15 minutes"),
        "Exercise 6.2 must state its minutes",
    ),
    (plan.exercises_solved, change(FOLD, "**6.3**", "**6.5**"), "solution 6.3, but no exercise"),
    (plan.exercises_solved, output(STUB, "stream", name="stdout", text="✓"), "must run unanswered"),
    (
        plan.exercises_solved,
        output(SOLUTION, "stream", name="stdout", text="…"),
        "no solution cell that printed",
    ),
    (
        plan.exercises_solved,
        change(SOLUTION, 'check.exercise("6.3"', 'check.exercise("6.4"'),
        "must end in check",
    ),
    (plan.exercises_solved, change(STUB, "check.exercise", "print"), "There are 1 coded exercises"),
    (text.portable_markdown, insert(3, new_markdown_cell("```{note}\nHm.\n```")), "a MyST directive"),
    (text.portable_markdown, insert(3, new_markdown_cell(":::note\n:::")), "a MyST block"),
    (text.portable_markdown, insert(3, new_markdown_cell("see {cite}`key`")), "a MyST role"),
    (text.portable_markdown, insert(3, new_markdown_cell("(here)=\n# H")), "a MyST label"),
    (text.portable_markdown, insert(3, new_markdown_cell("by $\\eqref{a}$")), "a LaTeX cross-reference"),
    (
        text.portable_markdown,
        insert(3, new_markdown_cell("\\begin{align}\nx\n\\end{align}")),
        "environment of its own",
    ),
    (text.portable_markdown, insert(3, new_markdown_cell("![a](attachment:a.png)")), "an attachment"),
    (text.portable_markdown, insert(3, new_markdown_cell("from https://a.org now")), "a bare address"),
    (text.portable_markdown, insert(3, new_markdown_cell("<script>x</script>")), "the HTML tag <script>"),
    (text.portable_markdown, change(2, "$$\nx", "$$ x"), "on lines of their own"),
    (
        text.portable_markdown,
        change(
            FOLD,
            "</details>",
            "",
        ),
        "a fold is not closed",
    ),
    (text.portable_markdown, change(FOLD, "</summary>\n", "</summary>"), "an empty line after </summary>"),
    (text.plain_code, change(4, "check", "!ls\ncheck"), "not plain Python"),
    (text.plain_code, change(4, "check", "%timeit x\ncheck"), "not plain Python"),
    (text.plain_code, insert(4, code("from tqdm.auto import tqdm")), "uses tqdm.auto"),
    (text.plain_code, insert(4, code("print(history.seconds)")), "prints seconds, which differs"),
    (text.plain_code, insert(4, code("t = time.time() - t0\nprint(t)", "0.31 s\n")), "printed “0.31 s”"),
    (text.plain_code, insert(4, code("print(m)", "375 MB\n")), "printed “375 MB”"),
    (text.no_absolute_paths, insert(4, code("open('/home/me/a.csv')")), "an absolute path (“/home/"),
    (text.no_absolute_paths, insert(4, code("1", "saved in /tmp/a\n")), "an absolute path (“/tmp/"),
    (text.links_resolve, change(2, "#the-layer", "#no-layer"), "names a heading that"),
    (text.links_resolve, change(2, "syllabus.md", "nothing.md"), "a file that does not exist"),
    (text.links_resolve, change(2, "syllabus.md", "syllabus.md#no"), "names a heading that"),
    (text.links_resolve, change(2, "../book/syllabus.md", "/book/syllabus.md"), "must be relative"),
    (text.links_resolve, change(LAST, "https", "http"), "well-formed https"),
    (text.links_resolve, change(LAST, "//arxiv.org", "//arxiv"), "well-formed https"),
    (
        text.references_known,
        change(LAST, "1505.05770", "0000.00000"),
        "0000.00000 is not in book/references.bib",
    ),
    (text.references_known, change(LAST, "](https", "] (https"), "has no link"),
]


def test_the_small_lecture_keeps_every_rule(tmp_path):
    small = lecture(tmp_path, good_cells())
    assert [problem for rule in RULES for problem in rule(small)] == []


@pytest.mark.parametrize(
    ("rule", "spoil", "words"), BROKEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_rule_fails(tmp_path, rule, spoil, words):
    spoilt = good_cells()
    spoil(spoilt)
    problems = list(rule(lecture(tmp_path, spoilt)))
    assert any(words in problem for problem in problems), problems


def test_no_rule_is_forgotten():
    written = [
        function
        for module in (cells, folds, form, plan, text)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and str(inspect.signature(function)).startswith("(lecture:")
    ]
    assert set(written) == set(RULES)


def test_every_rule_is_shown_to_fail():
    assert {rule for rule, _, _ in BROKEN} == set(RULES) - {cells.executed_in_order}


@pytest.mark.parametrize(
    "words",
    [
        r"The slides write $\det|\nabla f|$, and deck B $f_{\mathbf w}$ and $\hat R(\mathbf w)$.",
        r"Here $\log|\det|$ is $\log\left|\det J\right|$, and $|\det|J||$ too.",
        r"The normal $w$, $w^\top z$, $p_{\text{data}}$, $p_{data_w}$, $p_{\theta}$, $p_{dz}$, $f_W$.",
        "A CDF in words, p_d without a formula, `P_w` in code.",
    ],
)
def test_the_notation_of_the_course_is_no_false_alarm(tmp_path, words):
    assert list(form.one_notation(lecture(tmp_path, [*good_cells(), new_markdown_cell(words)]))) == []


def test_titles_of_folds_may_say_more(tmp_path):
    good = good_cells()
    good[3].source = good[3].source.replace("Check (6.1)", "Check (6.1): it holds")
    good.insert(4, code("# @title Figure: what it shows\nplt.show()", **FOLDED))
    assert [
        problem for rule in (folds.folded, folds.checks_folded) for problem in rule(lecture(tmp_path, good))
    ] == []


@pytest.mark.parametrize("count", [None, 7])
def test_cells_out_of_order_fail(tmp_path, count):
    small = lecture(tmp_path, good_cells())
    small.cells[3].execution_count = count
    assert "has the count" in " ".join(cells.executed_in_order(small))


def test_a_missing_bibliography_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BIBLIOGRAPHY", tmp_path / "none.bib")
    assert "references.bib is missing" in " ".join(text.references_known(lecture(tmp_path, good_cells())))


def test_rows_of_formulas(tmp_path):
    (row,) = formulas(lecture(tmp_path, good_cells()).path)
    assert (row.tag, row.notebook, row.anchor) == ("6.1", "06_planar_flows.ipynb", "formula-6-1")
    assert row.latex == "x = z + u \\, h(w^\\top z + b)"
    assert row.section == "The layer"
    assert row.line == "✓ (6.1) it holds: equal to within 1e-10"
    assert row.bound == "equal to within 1e-10"
    assert [(check.tag, check.bound) for check in row.more] == [("6.1b", "at most 1")]
    ids = [cell["id"] for cell in json.loads((tmp_path / "nbs" / row.notebook).read_text())["cells"]]
    assert row.cell_id == ids[2]


def test_the_command_line_names_what_to_repair(tmp_path, monkeypatch, capsys):
    from tools.lint import __main__ as command

    spoilt = good_cells()
    del spoilt[3]
    monkeypatch.setattr(command, "find", lambda names: [lecture(tmp_path, spoilt).path])
    assert command.main(["06"]) == 1
    assert "06_planar_flows.ipynb: Formula (6.1) has no check" in capsys.readouterr().out
    monkeypatch.setattr(command, "find", lambda names: [lecture(tmp_path, good_cells()).path])
    assert command.main(["06"]) == 0
