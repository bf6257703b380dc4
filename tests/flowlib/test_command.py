"""``python -m flowlib.train``: what it says, what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowlib.data import DATASETS, load_dataset
from flowlib.models import MODELS
from flowlib.train import load_checkpoint, load_parameters
from flowlib.train.arguments import parser
from flowlib.train.command import main
from flowlib.train.flow_for import flow_for
from flowlib.train.recipes import MODEL_SIZES, recipe

QUICK = ["--steps", "6", "--samples-every", "0", "--validate-every", "3"]
POINTS = ["--data", "eight_gaussians", "--model", "realnvp", "--layers", "2", "--hidden", "8", *QUICK]
DIGITS = ["--layers", "1", "--scales", "2", "--hidden", "8", "--batch-size", "16", *QUICK]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def run(out: Path, *arguments: str) -> dict:
    assert main([*arguments, "--out", str(out)]) == 0
    return json.loads((out / "result.json").read_text())


def losses(out: Path) -> list[float]:
    return load_checkpoint(out / "checkpoint.pt")["history"]["loss"].tolist()


# --- what it says -------------------------------------------------------------------------


def test_the_help_names_every_model_data_set_and_default(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    for name in (*MODELS, *DATASETS, "folder:PATH", "torchrun --nproc-per-node=4 -m flowlib.train"):
        assert name in text
    for action in parser()._actions:
        assert action.help, action.dest
        if action.default not in (None, False, "==SUPPRESS=="):
            assert f"(default: {action.default})" in action.help, action.dest


def test_every_size_of_every_model_has_an_option():
    keywords = {name for build in MODELS.values() for name in inspect.signature(build).parameters}
    # mix is a function; steps, those of ffjord's solver, would be taken for those of the training
    others = {"event_shape", "context_features", "base", "mix", "steps"}
    assert keywords - others == set(MODEL_SIZES)
    assert set(MODEL_SIZES) <= {action.dest for action in parser()._actions}


@pytest.mark.parametrize("name", MODELS)
def test_the_recipes_suit_points_and_images(name):
    digits = load_dataset("digits")
    flow = flow_for(digits, name, **recipe(name, digits)[0])
    assert flow.event_shape == (1, 8, 8)
    assert not flow.is_exact
    sizes, training = recipe(name, load_dataset("patches", size=20))
    assert sizes.get("scales", 1) <= 2
    assert training["steps"] == 20_000


# --- what it refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "glo"], "There is no model 'glo'; choose one of linear, planar"),
        (["--data", "digit"], "There is no data set 'digit'; choose one of"),
        (["--data", "folder:/no/such"], "/no/such is no folder"),
        (
            ["--model", "planar", "--hidden", "8", "--bins", "3"],
            "planar does not take hidden and bins; its sizes are ",
        ),
        (["--model", "linear", "--layers", "8"], "linear does not take layers; its sizes are none at all"),
        (["--model", "glow", "--data", "two_moons"], r"glow takes images, event_shape=(C, H, W)"),
        (["--scales", "4"], "glow with scales=4 halves an image 4 times"),
        (["--model", "linear", "--data", "u1", "--class-conditional"], "needs labels, and u1 has none"),
        (["--model", "linear", "--bfloat16", "--data", "u1"], "this flow has none"),
        (["--device", "abacus"], "There is no device 'abacus' here"),
        (["--validate-every", "0", "--patience", "2"], "there are none to measure"),
        (["--accumulate", "3", "--batch-size", "64"], "cannot be cut evenly"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(arguments, says, capsys, tmp_path):
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "argument --steps: it must be a whole number, 1 or more, and came as '0'."),
        (["--steps", "1e3"], "argument --steps: it must be a whole number, 1 or more, and came as '1e3'."),
        (["--lr", "-1"], "argument --lr: it must be a positive number, such as 1e-3, and came as '-1'."),
        (["--lr", "fast"], "it must be a positive number"),
        (["--ema", "1"], "argument --ema: it must be at least 0 and below 1, and came as '1'."),
        (["--seed", "99999999999"], "a whole number, from 0 to 4294967295"),
        (["--step", "5"], "--step 5"),
    ],
)
def test_what_is_no_value_is_refused_with_a_sentence(arguments, says, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.endswith("All options: python -m flowlib.train --help\n")


def test_a_file_in_place_of_the_folder_is_refused(capsys, tmp_path):
    (tmp_path / "run").write_text("mine")
    assert main([*POINTS, "--out", str(tmp_path / "run")]) == 2
    assert "--out must be a folder" in capsys.readouterr().err


def test_a_training_that_breaks_down_ends_with_a_sentence(capsys, tmp_path):
    assert main([*POINTS, "--lr", "1e30", "--out", str(tmp_path)]) == 1
    assert "Try a smaller lr" in capsys.readouterr().err


# --- what it writes -----------------------------------------------------------------------


def test_images_end_in_bits_and_a_sheet_of_each_class(tmp_path, capsys):
    result = run(tmp_path / "a", *DIGITS, "--class-conditional", "--samples-every", "6", "--bfloat16")
    files = {str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*.*")}
    wanted = {"history.csv", "result.json", "samples.png", "samples/step_000006.png"}
    assert wanted <= files
    assert result["sizes"] == {"layers": 1, "scales": 2, "hidden": [8]}
    assert result["test_points"] == 360
    assert result["test_bits_per_dimension"] == pytest.approx(
        result["test_nats"] / (64 * torch.tensor(2.0).log().item())
    )
    assert result["log_prob_is_exact"] is False
    assert len((tmp_path / "a" / "history.csv").read_text().splitlines()) == 7
    assert f"{result['test_bits_per_dimension']:.3f} bits per dimension" in capsys.readouterr().out

    flow = flow_for(load_dataset("digits"), "glow", 10, layers=1, scales=2, hidden=(8,))
    load_parameters(flow, tmp_path / "a" / "checkpoint.pt")
    assert flow.sample(2, torch.eye(10)[:2]).shape == (2, 1, 8, 8)


def test_models_of_vectors_take_images(tmp_path):
    result = run(tmp_path, "--model", "linear", "--lr", "0.01", "--ema", "0", *QUICK)
    assert result["test_bits_per_dimension"] > 2


def test_points_end_in_nats(tmp_path):
    result = run(tmp_path, *POINTS)
    assert result["test_bits_per_dimension"] is None
    content = load_checkpoint(tmp_path / "checkpoint.pt")
    assert content["history"]["validation"][0].tolist() == [3, 6]
    assert content["settings"]["data"].startswith("(18000, 2)")
    test = load_dataset("eight_gaussians").test
    flow = flow_for(load_dataset("eight_gaussians"), "realnvp", layers=2, hidden=(8,))
    nats = -load_parameters(flow, tmp_path / "checkpoint.pt").log_prob(test).mean()
    assert result["test_nats"] == pytest.approx(nats.item(), rel=1e-6)


# --- how it goes on -----------------------------------------------------------------------


def test_ctrl_c_says_how_to_go_on_and_the_run_ends_as_if_undisturbed(tmp_path, capsys, monkeypatch):
    expected = run(tmp_path / "whole", *DIGITS)
    step, count = torch.optim.Adam.step, iter(range(6))

    def press(optimiser):
        if next(count) == 3:
            signal.raise_signal(signal.SIGINT)
        return step(optimiser)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", press)
        assert main([*DIGITS, "--out", str(tmp_path / "cut")]) == 130
    assert (
        f"Run the same command again to go on from what is in {tmp_path / 'cut'}" in capsys.readouterr().err
    )
    assert len(losses(tmp_path / "cut")) == 4
    result = run(tmp_path / "cut", *DIGITS)
    assert f"from step 4 in {tmp_path / 'cut' / 'checkpoint.pt'}" in capsys.readouterr().err
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert result["test_nats"] == expected["test_nats"]

    picture = (tmp_path / "cut" / "samples.png").read_bytes()
    run(tmp_path / "cut", *DIGITS, "--temperature", "2")
    assert "This run was finished before" in capsys.readouterr().err
    assert (tmp_path / "cut" / "samples.png").read_bytes() != picture
    assert main([*DIGITS, "--lr", "0.5", "--out", str(tmp_path / "cut")]) == 2
    error = capsys.readouterr().err
    assert "lr was 0.001 and is 0.5" in error
    assert "give another --out" in error


def test_ctrl_c_outside_the_training_says_so_too(tmp_path, capsys, monkeypatch):
    def press(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("flowlib.train.command.load_dataset", press)
    assert main([*POINTS, "--out", str(tmp_path)]) == 130
    assert "Stopped. Run the same command again" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_a_full_disk_is_said_and_is_no_success(tmp_path, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("flowlib.train.resume.save_checkpoint", full)
        assert main([*POINTS, "--out", str(tmp_path)]) == 1
    assert "The last checkpoint could not be written" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("flowlib.train.result.replacing", full)
        assert main([*POINTS, "--out", str(tmp_path)]) == 1
    assert "The result could not be written" in capsys.readouterr().err
    run(tmp_path, *POINTS)


# --- as a program -------------------------------------------------------------------------


def program(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


def test_the_module_runs_as_a_program(tmp_path):
    done = program("-W", "error", "-m", "flowlib.train", *POINTS, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Negative log-likelihood of the 5000 test points: ")
    assert "Warning" not in done.stderr


def test_two_processes_learn_what_one_does(tmp_path):
    alone = run(tmp_path / "one", *POINTS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "flowlib.train"]
    done = program(*launch, *POINTS, "--device", "cpu", "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert (
        len(load_checkpoint(tmp_path / "two" / "checkpoint.pt")["random"]) == 2
    )  # one state for each process
    assert done.stdout.count("Negative log-likelihood") == 1
    assert done.stderr.count("6 steps of 256 points") == 1
    together = json.loads((tmp_path / "two" / "result.json").read_text())
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert together["test_nats"] == pytest.approx(alone["test_nats"], rel=1e-5)
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.pt")["flow"] for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
