"""A checkpoint is whole or refused: no damage to the file passes unseen, and nothing foreign is lost."""

from __future__ import annotations

import os
import random
import zipfile

import pytest
import torch

from flowlib import MODELS, Flow, Planar, StandardNormal, fit
from flowlib.data import TwoMoons
from flowlib.train import CheckpointError, load_checkpoint, load_parameters, save_checkpoint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.pt"


def content(step):
    return {"step": step, "weight": torch.arange(300.0) + step, "names": ["a", None, {"b": (1, 2.5)}]}


def same(one, other):
    return one.pop("weight").equal(other.pop("weight")) and one == other


def test_what_is_saved_comes_back(path):
    save_checkpoint(path, content(1))
    assert same(load_checkpoint(path), content(1) | {"format": "flowlib checkpoint", "version": 3})


def test_the_last_is_kept_and_nothing_else(path):
    for step in range(4):
        save_checkpoint(path, content(step))
    assert load_checkpoint(path)["step"] == 3
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"]


def test_a_link_stays_one(path):
    path.symlink_to(real := path.with_name("elsewhere.pt"))
    save_checkpoint(path, content(1))
    assert path.is_symlink()
    assert load_checkpoint(real)["step"] == 1


def test_no_code_is_read(path):
    torch.save({"format": "flowlib checkpoint", "version": 3, "step": os.getcwd}, path)
    with pytest.raises(CheckpointError, match="is no checkpoint of flowlib, or it is damaged"):
        load_checkpoint(path)


# --- damage ----------------------------------------------------------------------------------


def test_every_truncation_is_seen(path):
    save_checkpoint(path, content(1))
    whole = path.read_bytes()
    for length in [0, 1, 30, *random.Random(0).sample(range(len(whole)), 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"run\.pt is no checkpoint of flowlib, or it is damaged"):
            load_checkpoint(path)


def test_no_flipped_bit_changes_what_is_read(path):
    save_checkpoint(path, content(1))
    whole, refused = path.read_bytes(), 0
    expected = load_checkpoint(path)
    numbers = random.Random(0)
    for _ in range(150):
        place = numbers.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << numbers.randrange(8)
        path.write_bytes(damaged)
        try:
            found = load_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:  # a bit that says nothing, in the padding between two tensors
            assert same(found, dict(expected))
    assert refused > 50


def test_a_flipped_bit_in_a_tensor_is_damage(path):
    save_checkpoint(path, content(1))
    whole = path.read_bytes()
    place = whole.index(torch.arange(300.0).add(1).numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    with pytest.raises(CheckpointError, match=r"run\.pt is no checkpoint of flowlib, or it is damaged"):
        load_checkpoint(path)


# --- not ours --------------------------------------------------------------------------------


def text(path):
    path.write_text("Dear diary")


def another_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "Dear diary")


def a_state_dict(path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)


def a_model(path):
    torch.save(torch.nn.Linear(2, 2), path)


@pytest.mark.parametrize("write", [text, another_archive, a_state_dict, a_model])
def test_a_foreign_file_is_refused(path, write):
    write(path)
    with pytest.raises(CheckpointError, match="is no checkpoint of flowlib, or it is damaged"):
        load_checkpoint(path)


def test_another_version_is_named(path):
    torch.save({"format": "flowlib checkpoint", "version": 1, "flow": {}}, path)
    with pytest.raises(CheckpointError, match="is of another version of flowlib"):
        load_checkpoint(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"run\.pt"):
        load_checkpoint(path)


def test_what_holds_no_parameters_loads_none(path):
    save_checkpoint(path, content(1))
    with pytest.raises(CheckpointError, match="was written with another model"):
        load_parameters(MODELS["planar"](), path)


# --- a write that fails ------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(path, monkeypatch, failing):
    save_checkpoint(path, content(1))

    def fail(*arguments):
        raise OSError("no")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="no"):
        save_checkpoint(path, content(2))
    assert load_checkpoint(path)["step"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"]


def test_a_file_of_somebody_else_is_no_history(tmp_path):
    notes = tmp_path / "notes.csv"
    notes.write_text("my own numbers\n")
    with pytest.raises(ValueError, match="would overwrite"):
        fit(Flow(Planar(2), StandardNormal(2)), TwoMoons(), steps=1, history=notes, progress=False)
    assert notes.read_text() == "my own numbers\n"
