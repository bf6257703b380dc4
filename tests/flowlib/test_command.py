"""``python -m flowlib.train``: what it says, what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowlib.data import DATASETS, load_dataset
from flowlib.models import MODELS
from flowlib.train import fit, load_checkpoint, load_parameters
from flowlib.train.command import main, parser
from flowlib.train.flow_for import flow_for, recipe
from tests.flowlib import forks

QUICK = ["--steps", "6", "--samples-every", "0", "--validate-every", "3"]
POINTS = ["--data", "eight_gaussians", "--model", "realnvp", "--layers", "2", "--hidden", "8", *QUICK]
DIGITS = ["--layers", "1", "--scales", "2", "--hidden", "8", "--batch-size", "16", *QUICK]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def run(out: Path, *arguments: str) -> dict:
    assert main([*arguments, "--out", str(out)]) == 0
    return json.loads((out / "result.json").read_text())


def losses(out: Path) -> list[float]:
    return load_checkpoint(out / "checkpoint.pt")["history"]["loss"]


# --- what it says -------------------------------------------------------------------------


def test_the_help_names_every_model_data_set_option_and_default(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in (*MODELS, *DATASETS, "folder:PATH", "torchrun --nproc-per-node=4 -m flowlib.train"):
        assert name in text
    for action in parser()._actions:
        assert action.help, action.dest
        assert not any(sign in action.help for sign in ("`", "\\", ":math")), action.help
    for words in ("(default: glow)", "(default: 32)", "(default: 100)", "(default: cuda if there is one)"):
        assert words in text


def test_every_size_of_every_model_and_every_argument_of_fit_has_an_option():
    keywords = {name for build in MODELS.values() for name in inspect.signature(build).parameters}
    # mix is a function; steps, those of ffjord's solver, would be taken for those of the training
    sizes = keywords - {"event_shape", "context_features", "base", "mix", "steps"}
    of_fit = set(inspect.signature(fit).parameters) - {"flow", "data", "context", "clip", "progress"}
    files = {"validation", "validation_context", "checkpoint", "samples", "history"}
    assert sizes | (of_fit - files) <= {action.dest for action in parser()._actions}


@pytest.mark.parametrize("name", MODELS)
def test_the_recipes_suit_points_and_images(name):
    digits = load_dataset("digits")
    flow = flow_for(digits, name, **recipe(name, digits)[0])
    assert flow.event_shape == (1, 8, 8)
    assert not flow.is_exact
    sizes, training = recipe(name, load_dataset("patches", size=20))
    assert sizes.get("scales", 1) <= 2
    assert training["steps"] == 20_000


def test_planar_layers_keep_their_parameters_as_a_flow_for_images():
    digits = load_dataset("digits")
    flow = flow_for(digits, "planar", layers=3)
    assert sum(p.numel() for p in flow.parameters()) == 3 * (64 + 64 + 1)
    before = [p.detach().clone() for p in flow.parameters()]
    fit(flow, digits.train[:32].float(), steps=2, batch_size=16, progress=False)
    assert not any(torch.equal(p, old) for p, old in zip(flow.parameters(), before, strict=True))


# --- what it refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "glo"], "There is no model 'glo'; choose one of linear, planar"),
        (["--data", "digit"], "There is no data set 'digit'; choose one of"),
        (["--data", "folder:/no/such"], "/no/such is no folder"),
        (
            ["--model", "planar", "--hidden", "8", "--bins", "3"],
            "planar takes the sizes (layers), and not hidden and bins",
        ),
        (["--model", "linear", "--layers", "8"], "linear takes the sizes (), and not layers"),
        (["--model", "glow", "--data", "two_moons"], r"glow takes images, event_shape=(C, H, W)"),
        (["--scales", "4"], "glow with scales=4 halves an image 4 times"),
        (["--model", "linear", "--data", "u1", "--class-conditional"], "needs labels, and u1 has none"),
        (["--device", "abacus"], "--device abacus does not work here"),
        (["--validate-every", "0", "--patience", "2"], "patience needs validation"),
        (["--steps", "0"], "steps must be a whole number, 1 or more, and came as 0"),
        (["--lr", "-1"], "lr must be a number between 0 and inf, and came as -1.0"),
        (["--ema", "1"], "ema must be a number between 0 and 1, and came as 1.0"),
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
        (["--steps", "1e3"], "argument --steps: invalid int value: '1e3'"),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--step", "5"], "--step 5"),
    ],
)
def test_what_is_no_value_is_refused_with_a_sentence(arguments, says, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert says in error


def test_a_file_in_place_of_the_folder_is_refused(capsys, tmp_path):
    (tmp_path / "run").write_text("mine")
    assert main([*POINTS, "--out", str(tmp_path / "run")]) == 2
    assert "File exists" in capsys.readouterr().err


def test_a_training_that_breaks_down_ends_with_a_sentence(capsys, tmp_path):
    assert main([*POINTS, "--lr", "1e30", "--out", str(tmp_path)]) == 1
    assert "try a smaller lr" in capsys.readouterr().err


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


def test_a_class_may_have_test_images_alone(tmp_path, monkeypatch):
    dataset = load_dataset("digits")
    rare = replace(dataset, test_labels=dataset.test_labels + (torch.arange(len(dataset.test)) == 0) * 10)
    monkeypatch.setattr("flowlib.train.command.load_dataset", lambda *_: rare)
    assert "test_nats" in run(tmp_path, *DIGITS, "--class-conditional")


def test_temperature_0_is_one_and_below_there_is_none(tmp_path, capsys, monkeypatch):
    titles = []
    monkeypatch.setattr("flowlib.train.command.picture", lambda *given: titles.append(given[3]))
    run(tmp_path, *POINTS, "--temperature", "0")
    assert titles == ["samples at temperature 0"]
    assert main([*POINTS, "--temperature", "-1", "--out", str(tmp_path)]) == 2
    assert "--temperature must be a number, 0 or more" in capsys.readouterr().err


def test_models_of_vectors_take_images(tmp_path):
    result = run(tmp_path, "--model", "linear", "--lr", "0.01", "--ema", "0", *QUICK)
    assert result["test_bits_per_dimension"] > 2


def test_points_end_in_nats(tmp_path):
    result = run(tmp_path, *POINTS)
    assert result["test_bits_per_dimension"] is None
    content = load_checkpoint(tmp_path / "checkpoint.pt")
    assert content["history"]["validation"][0][0] == 3
    assert "(18000, 2)" in content["settings"]["data"]
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
    assert "Run the same command again to go on from where it stands" in capsys.readouterr().err
    assert len(losses(tmp_path / "cut")) == 4
    result = run(tmp_path / "cut", *DIGITS)
    assert f"from step 4, in {tmp_path / 'cut'}" in capsys.readouterr().err
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert result["test_nats"] == expected["test_nats"]

    picture = (tmp_path / "cut" / "samples.png").read_bytes()
    run(tmp_path / "cut", *DIGITS, "--temperature", "2")
    assert "This run was finished before" in capsys.readouterr().err
    assert (tmp_path / "cut" / "samples.png").read_bytes() != picture
    assert main([*DIGITS, "--lr", "0.5", "--out", str(tmp_path / "cut")]) == 2
    error = capsys.readouterr().err
    assert "lr was 0.001 and is 0.5" in error
    assert "another --out" in error


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
        patch.setattr("flowlib.train.checkpoint.save_checkpoint", full)
        assert main([*POINTS, "--out", str(tmp_path)]) == 1
    assert "The last checkpoint could not be written" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("flowlib.train.command.replacing", full)
        assert main([*POINTS, "--out", str(tmp_path)]) == 1
    assert "No space left" in capsys.readouterr().err
    run(tmp_path, *POINTS)


# --- as a program -------------------------------------------------------------------------


def program(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


def test_the_module_runs_as_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "flowlib.train", *POINTS, "--out", str(tmp_path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Negative log-likelihood of the 5000 test points: ")
    assert len(done.stderr.splitlines()) == 2  # no warning, and no bar where TQDM_DISABLE is set


def as_torchrun_starts_it(rank: int, folder: Path) -> None:
    """One of two processes, with what torchrun tells them."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", TORCHELASTIC_RUN_ID="test")
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=(folder / "port").read_text())
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    with (folder / f"said-{rank}").open("w") as file, redirect_stdout(file), redirect_stderr(file):
        assert main([*POINTS, "--device", "cpu", "--out", str(folder / "two")]) == 0


def test_two_processes_learn_what_one_does(tmp_path):
    alone = run(tmp_path / "one", *POINTS)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    assert forks.run_together(as_torchrun_starts_it, 2, tmp_path) == [0, 0]
    assert (tmp_path / "said-0").read_text().count("Negative log-likelihood") == 1
    assert (tmp_path / "said-1").read_text() == ""
    together = json.loads((tmp_path / "two" / "result.json").read_text())
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert together["test_nats"] == pytest.approx(alone["test_nats"], rel=1e-5)
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.pt")["flow"] for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)


def test_another_model_in_the_same_folder_is_refused(tmp_path, capsys):
    spline = ["--data", "two_moons", "--model", "spline", "--layers", "1", "--hidden", "4", *QUICK]
    expected = run(tmp_path, *spline, "--box", "4")
    assert main([*spline, "--box", "1.5", "--out", str(tmp_path)]) == 2
    assert "box=1.5" in capsys.readouterr().err
    assert json.loads((tmp_path / "result.json").read_text()) == expected
