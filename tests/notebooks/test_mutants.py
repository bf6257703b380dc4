"""Wrong formulas: the tool on a tiny lecture, and a sample of each lecture's mutants, which must die."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import mutants
from tools.mutants import __main__ as command
from tools.mutants import judge as judging
from tools.mutants.change import mutants as mutants_of
from tools.mutants.program import needed, steps, targets
from tools.mutants.results import RESULTS, divided, equivalents, load, merge
from tools.notebooks import LECTURES
from tools.setup_cell import ROOT

SAMPLE, SECONDS = 6, 5.0

# an exact check, one that proves too little, one of a formula that never ends when it is wrong, a plot
TINY = [
    "from flowlib import check",
    "def double(a):\n    return a + a",
    "check.identity('6.1', double(3.0), 6.0, says='twice')",
    "b = double(2.0) * 1.5\nprint(b)",
    "check.at_least('6.2', b, 1.0, says='large')",
    "def climb(a, steps=0):\n    while a > 0:\n        a = a - 1\n    return a",
    "check.identity('6.3', climb(3.0), 0.0, says='down')",
    "drawn = double(1.0) - 7",
    "answer = None  # your code\nexpected = double(b) + 1\ncheck.exercise('6.4', answer, expected)",
    "# @title Solution 6.4\nanswer = b + b + 1\ncheck.exercise('6.4', answer, expected)",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "06_tiny.ipynb"
    cells = [new_markdown_cell("# 6. Tiny"), *map(new_code_cell, TINY)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture(autouse=True, scope="module")
def impatient():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "SECONDS_PER_MUTANT", 2)
        yield


@pytest.fixture(scope="module")
def found(tiny: Path, impatient) -> dict:
    """The verdicts on the tiny lecture, in a process of their own as the command has it."""
    return command.measured(tiny, None, 0, None)


def test_what_a_check_notices_dies_and_the_rest_survives(found: dict) -> None:
    alive = {(one["tag"], one["cell"], one["line"], one["change"]) for one in found["survivors"]}
    assert ("6.2", 5, 1, "double(2.0) * 1.5 → double(2.0) / 1.5") in alive
    assert not {tag for tag, *_ in alive} - {"6.2"}, "What an identity checks must die."
    assert found["killed"] == found["run"] - len(alive)
    assert found["run"] == found["possible"] > 20
    assert not found["unjudged"]


def test_what_never_ends_is_dead(found: dict) -> None:
    """a - 1 becomes a + 1, a, 1.03 a - 1 above 33 and a > 0 becomes a < 0, which leaves 3."""
    assert found["timed_out"] >= 2


def test_what_fills_the_memory_is_dead() -> None:
    """Memory that is asked for and never written to costs nothing here, and counts all the same."""

    def pile(say) -> None:
        piled = []
        for _ in range(100):
            piled.append(torch.empty(1 << 30, dtype=torch.uint8))
            say(len(piled))

    end, said = judging.forked(pile, 2)
    assert end == 1
    assert len(said) < 6


def test_only_what_a_check_follows_from_is_made_wrong(tiny: Path) -> None:
    program = steps(nbformat.read(tiny, 4))
    source = {k: ast.unparse(step.node).splitlines()[0] for k, step in enumerate(program)}
    place = {text: k for k, text in source.items()}
    tags = {text: [program[j].tag for j in targets(program, k)] for text, k in place.items()}
    assert tags["def double(a):"] == ["6.1", "6.2", "6.4"]
    assert tags["b = double(2.0) * 1.5"] == ["6.2", "6.4"]
    assert tags["drawn = double(1.0) - 7"] == []
    assert not program[place["expected = double(b) + 1"]].mutable, "A stub is not made wrong."
    last = max(place.values())
    left_out = {source[k] for k in set(source) - set(needed(program, [last]))}
    assert left_out >= {"drawn = double(1.0) - 7", "print(b)", "def climb(a, steps=0):", "answer = None"}


@pytest.mark.parametrize(
    ("made", "changed"),
    [
        ("x = [1]", "x += [2]"),
        ("x = []", "x.append(2)"),
        ("x = {}", "x['a'] = 2"),
        ("x = torch.zeros(1)", "x[0] += 2"),
        ("x = net(2)", "for p in x.parameters():\n    p.copy_(2)"),
        ("y = net(2); x = Flow(y)", "y.update(2)"),
        ("y = net(2); x = y; adam = Adam(x.parameters())", "for _ in y:\n    adam.step()"),
    ],
)
def test_what_is_changed_in_place_is_written(made: str, changed: str) -> None:
    cells = map(new_code_cell, [made, changed, "check.identity('6.1', x, 3, says='changed')"])
    program = steps(new_notebook(cells=list(cells)))
    last = len(program) - 1
    assert targets(program, last - 1) == [last]
    assert needed(program, [last]) == list(range(last + 1))


def test_a_check_that_fails_is_not_judged(tiny: Path, tmp_path: Path) -> None:
    """It may rest on training, which was left out; the others are judged all the same."""
    notebook = nbformat.read(tiny, 4)
    notebook.cells.append(new_code_cell("check.identity('6.5', b * 2, 0.0, says='untrained')"))
    nbformat.write(notebook, tmp_path / tiny.name)
    found = command.measured(tmp_path / tiny.name, 60, 0, None)
    assert found is not None
    assert [place.partition(",")[0] for place in found["unjudged"]] == ["cell 12: check.identity('6.5'"]
    assert found["killed"] > 20


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("y = a - b", ["1.03 * (a - b)", "a + b", "a", "-b", "1.03 * a - b", "a - 1.03 * b"]),
        ("y = a * b", ["1.03 * (a * b)", "a / b", "a", "b"]),
        ("y = a ** 2", ["1.03 * a ** 2", "a", "a ** 3"]),
        ("y = -torch.exp(a)", ["1.03 * -torch.exp(a)", "torch.exp(a)", "a"]),
        ("y = (a @ b).log()", ["1.03 * (a @ b).log()", "a @ b"]),
        ("y = a.mean(0)", ["1.03 * a.mean(0)", "a.sum(0)"]),
        ("y = where(a < b, c[0], c[-1])", ["a > b", "c[1]"]),
        ("total += a", ["total -= a"]),
        ("check.at_most('6.1', a, 2 * bound, says=f'{a + b}', tol=a * b)", []),
        ("print(a + b)", []),
        ("ax.plot(a + b, a * b)", []),
        ("y = 2 * torch.rand(5) - 1", []),
        ("y = a.sum(-1)", ["1.03 * a.sum(-1)", "a.mean(-1)"]),
        ("history = fit(flow, data, steps=2 * n)", []),
    ],
)
def test_one_place_at_a_time(statement: str, changes: list[str]) -> None:
    (node,) = ast.parse(statement).body
    assert [mutant.change.partition(" → ")[2] for mutant in mutants_of(node)] == changes
    assert ast.unparse(node) == statement, "Making a mutant leaves the statement as it was."


def test_equivalents_do_not_count() -> None:
    survivors = [{"tag": "6.1", "change": "a → b"}, {"tag": "6.2", "change": "a → b"}]
    found = {"run": 10, "killed": 8, "survivors": survivors}
    alive, same, share = divided("06", found, {("06", "6.1", "a → b"): "both are zero"})
    assert (alive, same, share) == (survivors[1:], survivors[:1], 8 / 9)
    assert divided("07", found, {("06", "6.1", "a → b"): ""})[0] == survivors


def test_the_command_merges_what_it_finds(tiny: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "mutants.json"
    merge("05", {"run": 1}, out)
    monkeypatch.setattr(command, "find", lambda names: [tiny])
    assert command.main(["06", "--at-most", "3", "--seconds", "20", "--out", str(out)]) == 0
    assert load(out).keys() == {"05", "06"}
    assert load(out)["06"]["run"] == 3
    assert "06: of" in capsys.readouterr().out
    broken = tmp_path / "06_broken.ipynb"
    broken.write_text(tiny.read_text().replace("2.0) * 1.5", "2.0) * missing"))
    monkeypatch.setattr(command, "find", lambda names: [broken])
    assert command.main(["06", "--out", str(out)]) == 1
    assert "the lecture does not run" in capsys.readouterr().err


# --- the lectures -----------------------------------------------------------------------------


def test_every_equivalent_is_a_mutant_of_today() -> None:
    """A lecture that was rewritten leaves none behind."""
    for lecture, tag, change in equivalents():
        program = steps(nbformat.read(next(LECTURES.glob(f"{lecture}_*.ipynb")), 4))
        now = {
            (program[j].tag, m.change)
            for k in range(len(program))
            for j in targets(program, k)[:1]
            for m in mutants_of(program[k].node)
        }
        assert (tag, change) in now, "Take it out of equivalents.yml."
    assert all(len(why) > 20 for why in equivalents().values()), "An equivalent needs its reason."


@pytest.fixture(scope="module")
def sampled(tmp_path_factory) -> dict[str, dict]:
    """A sample of each lecture's mutants, all by one process: a fork starts at once, and Python does not."""
    out = tmp_path_factory.mktemp("mutants") / "sample.json"
    options = ["--at-most", str(SAMPLE), "--seconds", str(SECONDS), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.mutants", *load(), *options],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    return json.loads(out.read_text("utf-8"))


@pytest.mark.parametrize("lecture", load())
def test_a_sample_of_wrong_formulas_is_noticed(sampled, lecture: str) -> None:
    known = {(one["tag"], one["change"]) for one in load()[lecture]["survivors"]}
    alive = divided(lecture, sampled[lecture], equivalents())[0]
    new = [one for one in alive if (one["tag"], one["change"]) not in known]
    assert sampled[lecture]["run"], "Not one mutant was run."
    assert not new, f"No check notices {new}; sharpen one, or see make mutants NB={lecture}."


def test_the_results_are_of_lectures() -> None:
    assert RESULTS.exists()
    assert mutants.__doc__
    for lecture, found in load().items():
        assert next(LECTURES.glob(f"{lecture}_*.ipynb"), None)
        assert found["killed"] + len(found["survivors"]) == found["run"] <= found["possible"]
