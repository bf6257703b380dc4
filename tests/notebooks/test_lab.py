"""The lab beyond the trial that nbval re-executes: its rules, its estimate, Colab, a student's own folder."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import types
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from nbformat import NotebookNode
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from flowlib import plots
from flowlib.data import Dataset, load_dataset
from flowlib.train import History
from flowlib.train.flow_for import flow_for
from tools import formulas, notebooks, setup_cell
from tools.lint import LAB_RULES, RULES, Lecture, rules_of
from tools.lint.text import ABSOLUTE_PATH

LABS = sorted((notebooks.LECTURES / notebooks.LABS).glob("*.ipynb"))
LAB = Lecture(notebooks.LECTURES / notebooks.LABS / "glow_on_a_gpu.ipynb")


def cell(words: str) -> str:
    """The one code cell that holds these words."""
    (source,) = [cell.source for _, cell in LAB.code if words in cell.source]
    return source


def value(name: str) -> Any:
    """What the lab assigns to a name, if it is plain data."""
    for node in ast.walk(ast.parse(cell(f"\n{name} = "))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"The lab has no {name}.")


@pytest.mark.parametrize(
    ("path", "rule"),
    [pytest.param(path, rule, id=f"{path.stem}-{rule.__name__}") for path in LABS for rule in rules_of(path)],
)
def test_lab_keeps(path, rule):
    problems = list(rule(Lecture(path)))
    assert not problems, "\n".join([f"{path.name}: {rule.__doc__}", *problems])


def test_labs_are_found_and_kept_apart_from_the_lectures():
    assert notebooks.find(["labs"]) == LABS == notebooks.find([f"nbs/labs/{LAB.path.name}"])
    assert notebooks.find([])[-len(LABS) :] == LABS
    assert LAB.path not in notebooks.find(["06"])
    assert not {row.notebook for row in formulas.all_formulas(notebooks.LECTURES)} & {p.name for p in LABS}
    assert {rule.__name__ for rule in set(RULES) - set(LAB_RULES)} == {
        "every_formula_checked",
        "few_cells",
        "exercises_of_each_kind",
        "planned",
        "right_length",
        "exercises_solved",
    }


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/content/drive/MyDrive/photos", True), ("/content/sample_data", False), ("/content/drives/", False)],
)
def test_of_colabs_folders_only_drive_is_everybodys(path, allowed):
    assert (ABSOLUTE_PATH.search(f'"{path}"') is None) == allowed


def test_reference_outputs_are_those_of_a_cpu():
    """On a GPU the lab would train for an hour."""
    assert notebooks.KERNEL_ENVIRONMENT["CUDA_VISIBLE_DEVICES"] == ""


def test_the_estimate_is_its_arithmetic():
    """Operations, parameters, file size and the table's rows follow from SIZES and TRAINING."""
    text = " ".join(LAB.text.split())
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    torch.manual_seed(0)
    flow = flow_for(Dataset("black", pixels, pixels, 256), "glow", 10, **value("SIZES")["medium"]).eval()
    parameters = sum(p.numel() for p in flow.parameters())
    with FlopCounterMode(display=False) as counter:
        flow(pixels.float(), torch.eye(10)[:1]).mean().backward()
    operations = counter.get_total_flops()

    assert f"{parameters / 1e6:.1f} million parameters" in text
    # in a checkpoint: the parameters, their average, the best, and Adam's two moments, in float32
    megabytes = int(re.search(r"checkpoint takes about (\d+) MB", text)[1])
    assert megabytes == pytest.approx(5 * 4 * parameters / 1e6, abs=5)

    assert f"{operations / 1e9:.1f} GFLOP" in text
    step = 64 * operations / (0.25 * 8.1e12)
    assert f"64 · {operations / 1e9:.1f} / (0.25 · 8100) = {step:.2f} s" in text
    rows = re.findall(r"^\| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|", LAB.text, re.MULTILINE)
    assert len(rows) == 5
    for minutes, taken, seen, epochs in rows:
        taken, seen = (int(number.replace(",", "")) for number in (taken, seen))
        assert taken == pytest.approx(60 * int(minutes) / step, rel=0.03)
        assert seen == pytest.approx(64 * taken, rel=0.03)
        assert float(epochs) == pytest.approx(seen / 48_000, abs=0.05)  # 2,000 of 50,000 are held out
    training = value("TRAINING")["medium"]
    assert (taken, training["batch_size"]) == (training["steps"], 64)


def read(name: str) -> dict[str, Any]:
    """A committed measurement."""
    return json.loads((setup_cell.ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def measured(steps: int, what: str) -> list[float]:
    """What the lab's own benchmark has for a budget: one value for each of three seeds."""
    values = [run[what] for run in read("lab")["runs"] if run["steps"] == steps]
    assert len(values) == 3
    return values


def spread(values: list[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def test_what_to_expect_on_a_cpu_was_measured():
    """Every number stands in a committed file, and that file holds this lab's model and settings."""
    text, lab, baselines = " ".join(LAB.text.split()), read("lab"), read("ablation")["baselines"]
    assert lab["sizes"] | {"hidden": tuple(lab["sizes"]["hidden"])} == value("SIZES")["tiny"]
    assert lab["training"] == value("TRAINING")["tiny"]
    assert f"| one normal density | mean and covariance | {baselines['full Gaussian']:.2f} |" in text
    assert f"| counting | {baselines['pixel histograms']:.2f} |" in text
    steps = lab["training"]["steps"]
    seconds = f"{mean(measured(steps, 'seconds')):.0f} s"
    assert f"{steps} steps of 48 images, {seconds} | {spread(measured(steps, 'test'))} |" in text
    assert f"on test images {spread(measured(3 * steps, 'test'))}" in text
    assert f"on the training images {spread(measured(3 * steps, 'train'))}" in text
    least, most = min(measured(steps, "test")), max(measured(steps, "test"))
    assert f"| {least:.2f} to {most:.2f} bits per dimension |" in LAB.cells[0].source
    for model in ("realnvp_multiscale", "glow"):
        row = read("training")["models"][model]
        assert f"of 64 images, {row['seconds']:.0f} s | {mean(row['test_bits']):.2f} |" in text


def test_the_page_shows_what_the_file_has_for_its_seed():
    (page,) = [code for _, code in LAB.code if '"trained, on test images:' in code.source]
    first = measured(260, "test")[0]
    assert page.outputs[0].text == f"trained, on test images: {first:.2f} bits per dimension\n"


def test_the_path_without_a_gpu_takes_its_minutes():
    """On a core three times as slow, too: the page's training in half a minute here, all in ten."""
    assert max(measured(260, "seconds")) < 30
    assert 3 * (max(measured(260, "seconds")) + max(measured(780, "seconds"))) < 5 * 60


def retitle(cell: NotebookNode) -> None:
    cell.source = cell.source.replace("Check (load)", "Check (save)")


def lengthen(cell: NotebookNode) -> None:
    cell.source += "  #" + 78 * "-"


@pytest.mark.parametrize(
    ("words", "change", "problem"),
    [
        ("# @title Set-up", lambda cell: cell.metadata.pop("cellView"), "set-up cell is not folded"),
        ("Check (resume)", lambda cell: cell.metadata.pop("tags"), "needs the tag hide-input"),
        ("Check (load)", lambda cell: cell.update(source=cell.source[8:]), "first line must be # @title"),
        ("Check (load)", retitle, "its title must name just these"),
        ("SIZES = ", lengthen, "over 78"),
    ],
)
def test_a_lab_folds_its_checks_and_keeps_its_lines_short(tmp_path, words, change, problem):
    notebook = nbformat.read(LAB.path, as_version=4)
    (found,) = [cell for cell in notebook.cells if cell.cell_type == "code" and words in cell.source]
    change(found)
    path = tmp_path / "labs" / LAB.path.name
    path.parent.mkdir()
    nbformat.write(notebook, path)
    assert problem in "\n".join(said for rule in rules_of(path) for said in rule(Lecture(path)))


def run_folder_cell(monkeypatch, device: str, colab: bool) -> tuple[dict[str, Any], list[str]]:
    """Run the cell that chooses where things go; return its names and what was mounted."""
    mounted: list[str] = []
    google, module = types.ModuleType("google"), types.ModuleType("google.colab")
    module.drive = types.SimpleNamespace(mount=mounted.append)
    if colab:
        monkeypatch.setitem(sys.modules, "google", google)
        monkeypatch.setitem(sys.modules, "google.colab", module)
    names: dict[str, Any] = {"sys": sys, "device": device}
    exec(cell("drive.mount"), names)
    return names, mounted


def test_on_colab_everything_goes_to_drive(monkeypatch):
    for device in ("cuda", "cpu"):
        names, mounted = run_folder_cell(monkeypatch, device, colab=True)
        assert len(mounted) == 1
        assert names["runs"].is_relative_to(f"{mounted[0]}/MyDrive")


def test_a_trial_leaves_nothing_behind_and_a_gpu_keeps_its_runs(monkeypatch):
    names, mounted = run_folder_cell(monkeypatch, "cpu", colab=False)
    assert not mounted
    assert names["runs"].is_dir()
    assert not names["runs"].is_relative_to(setup_cell.ROOT)
    names["trial"].cleanup()  # as Python does at its end
    assert not names["runs"].exists()
    names, mounted = run_folder_cell(monkeypatch, "cuda", colab=False)
    assert not mounted
    assert names["runs"] == Path("runs")


def test_what_is_missing_is_installed_and_torch_is_not_named(monkeypatch):
    commands: list[list[str]] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name != "tqdm" else object())
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    precision = torch.get_default_dtype()
    names = {"importlib": importlib, "subprocess": subprocess, "sys": sys, "torch": torch, "device": "cpu"}
    try:
        exec(cell("needed = "), names)
    finally:
        torch.set_default_dtype(precision)
    assert commands == [[sys.executable, "-m", "pip", "install", "--quiet", "pooch", "pillow"]]


def choose_scale(monkeypatch, runs: Path, data: str, card: tuple[int, int] | None) -> dict[str, Any]:
    """Run the cell that chooses the scale and the run's folder, up to where it builds the flow."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: card)
    train, device = torch.zeros(1, 3, 32, 32), "cuda" if card else "cpu"
    names = {"torch": torch, "device": device, "Path": Path, "runs": runs, "DATA": data, "train": train}
    exec(cell("SIZES = ").partition("\ntorch.manual_seed")[0], names)
    return names


@pytest.mark.parametrize(
    ("card", "scale"), [(None, "tiny"), ((7, 5), "medium"), ((8, 0), "large"), ((9, 0), "large")]
)
def test_the_scale_suits_the_card(monkeypatch, tmp_path, card, scale):
    names = choose_scale(monkeypatch, tmp_path, "cifar10", card)
    assert names["SCALE"] == scale
    assert names["modern"] == (scale == "large")  # bfloat16, which older cards have no units for
    assert names["SIZES"].keys() == names["TRAINING"].keys()


def test_another_card_goes_on_with_the_run_of_the_first(monkeypatch, tmp_path):
    first = choose_scale(monkeypatch, tmp_path, "cifar10", (7, 5))
    later = choose_scale(monkeypatch, tmp_path, "cifar10", (8, 0))
    assert (later["run"], later["SCALE"]) == (first["run"], "medium")
    assert later["modern"]


@pytest.mark.parametrize("data", ["folder:/my/photos", "folder:/my/photos/", "folder:photos/"])
def test_a_run_has_a_name_whatever_the_folder_ends_in(monkeypatch, tmp_path, data):
    assert "photos-32" in choose_scale(monkeypatch, tmp_path, data, None)["run"].name


def note(asked: list, name: str, root: Path | None, size: int) -> None:
    """Stands in for load_dataset: nothing after it is of interest."""
    asked.append(root)
    raise EOFError


def test_downloads_stay_on_drive_and_a_history_without_a_look_is_drawn(monkeypatch, close_figures):
    for on_colab in (True, False):
        asked = []
        fake = types.ModuleType("flowlib.data")
        fake.load_dataset = partial(note, asked)
        monkeypatch.setitem(sys.modules, "flowlib.data", fake)
        with pytest.raises(EOFError):
            exec(cell("load_dataset(DATA"), {"device": "cuda", "runs": Path("drive"), "on_colab": on_colab})
        assert asked == [Path("drive", "data") if on_colab else None]
    names = {"torch": torch, "plots": plots, "plt": plt, "history": History(loss=[3.0, 2.0])}
    names["glow"] = types.SimpleNamespace(event_shape=torch.Size([3, 2, 2]))
    monkeypatch.setattr(plt, "show", lambda: None)
    exec(cell("history.validation"), names)
    assert len(plt.gca().lines[-1].get_xdata()) == 0


def test_what_is_held_out_is_what_the_data_set_holds_out(monkeypatch):
    """Patches overlap: held-out ones cut from the training patches would share their pixels."""
    for name, held in (("patches", 104), ("digits", 144)):
        data = load_dataset(name)
        monkeypatch.setattr("flowlib.data.load_dataset", lambda *_, data=data, **__: data)
        names = {"torch": torch, "device": "cpu", "dtype": torch.float64, "runs": Path(), "on_colab": False}
        exec(cell("load_dataset(DATA"), names)
        parts = data.hold_out(held)
        assert len(names["held_out"]) == len(names["held_out_labels"]) == held
        assert torch.equal(names["held_out"], parts.validation.double())
        assert torch.equal(names["train"], parts.train.double())
        assert torch.equal(names["train_labels"].argmax(1), parts.train_labels)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_are_dark_ink_on_white_paper_and_others_in_colour(close_figures, channels, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    lightest = torch.full((30, channels, 2, 2), 16.0)
    names = {"plots": plots, "plt": plt, "data": Dataset("light", lightest, lightest, 17), "train": lightest}
    exec(cell("def show("), names)
    shade = plt.gca().images[0].get_array()[0, 0, 0]
    assert shade == (0.0 if channels == 1 else 1.0)


@pytest.fixture
def photographs(tmp_path) -> Path:
    """A folder of 20 small photographs in two classes."""
    for k in range(20):
        place = tmp_path / "photos" / ("hills" if k % 2 else "lakes")
        place.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").rotate(18 * k).convert("RGB").save(place / f"{k}.png")
    return tmp_path / "photos"


def test_the_lab_runs_on_a_folder_of_photographs(photographs, monkeypatch, capsys):
    """Every cell, with the student's DATA and SIZE and a training of four steps; no kernel, for speed."""
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    changes = {
        'DATA = "cifar10" if device == "cuda" else "digits"': f"DATA = {f'folder:{photographs}'!r}",
        "SIZE = 32": "SIZE = 16",
        '"steps": 260': '"steps": 20',
        '"layers": 4': '"layers": 1',
    }
    names: dict[str, Any] = {}
    precision = torch.get_default_dtype()
    try:
        for _, code in LAB.code:
            source = code.source
            for old in [old for old in changes if old in source]:
                source = source.replace(old, changes.pop(old))
            exec(source, names)
    finally:
        torch.set_default_dtype(precision)
        plt.rcdefaults()
    assert not changes
    assert names["train"].shape[1:] == (3, 16, 16)
    assert names["classes"] == 2
    made = {path.name for path in names["run"].iterdir()}
    assert made == {"checkpoint.pt", "history.csv", "samples", "samples.png", "scale.txt"}
    assert "photos-16" in str(names["run"])
    names["trial"].cleanup()
    printed = capsys.readouterr().out
    assert "✓ (resume)" in printed
    assert "✓ (load)" in printed
