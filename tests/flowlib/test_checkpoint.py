"""A checkpoint is whole or refused: no damage to the file passes unseen, and nothing foreign is lost."""

from __future__ import annotations

import os
import random
import zipfile

import pytest
import torch

from flowlib import MODELS
from flowlib.train import CheckpointError, load_checkpoint, load_parameters, save_checkpoint
from flowlib.train.checkpoint import previous


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.pt"


def content(step):
    return {"step": step, "weight": torch.arange(300.0) + step, "names": ["a", None, {"b": (1, 2.5)}]}


def same(one, other):
    return one.pop("weight").equal(other.pop("weight")) and one == other


def test_what_is_saved_comes_back(path):
    save_checkpoint(path, content(1))
    assert same(load_checkpoint(path), content(1) | {"format": "flowlib checkpoint", "version": 1})


def test_the_last_two_are_kept_and_nothing_else(path):
    for step in range(4):
        save_checkpoint(path, content(step))
    assert load_checkpoint(path)["step"] == 3
    assert load_checkpoint(previous(path))["step"] == 2
    assert sorted(file.name for file in path.parent.iterdir()) == ["run.previous.pt", "run.pt"]


def test_no_code_is_read(path):
    torch.save({"format": "flowlib checkpoint", "version": 1, "step": os.getcwd}, path)
    with pytest.raises(CheckpointError, match="was not written by flowlib"):
        load_checkpoint(path)


# --- damage ----------------------------------------------------------------------------------


def test_every_truncation_is_seen(path):
    save_checkpoint(path, content(1))
    whole = path.read_bytes()
    for length in [0, 1, 30, *random.Random(0).sample(range(len(whole)), 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"run\.pt is no checkpoint of flowlib, or it is truncated"):
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
    with pytest.raises(CheckpointError, match=r"run.pt is damaged: the checksum of \S+ in it is wrong"):
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


def newer(path):
    torch.save({"format": "flowlib checkpoint", "version": 2, "flow": {}}, path)


FOREIGN = pytest.mark.parametrize(
    ("write", "words"),
    [
        (text, "is no checkpoint of flowlib, or it is truncated: File is not a zip file"),
        (another_archive, "was not written by flowlib"),
        (a_state_dict, "was not written by flowlib"),
        (a_model, "was not written by flowlib"),
        (newer, "was written by a newer flowlib: version 2 of the format, and this one reads version 1"),
    ],
)


@FOREIGN
def test_a_foreign_file_is_refused(path, write, words):
    write(path)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


@FOREIGN
def test_a_foreign_file_is_set_aside_and_the_previous_good_one_used(path, write, words):
    save_checkpoint(path, content(1))
    save_checkpoint(path, content(2))
    write(path)
    foreign = path.read_bytes()
    with pytest.warns(UserWarning, match=rf"{words}.* previous checkpoint, run.previous.pt, after step 1"):
        assert load_checkpoint(path)["step"] == 1
    save_checkpoint(path, content(3))
    assert load_checkpoint(path)["step"] == 3
    assert load_checkpoint(previous(path))["step"] == 1
    write(path)
    save_checkpoint(path, content(4))
    assert path.with_name("run.set-aside-1.pt").read_bytes() == foreign
    assert path.with_name("run.set-aside-2.pt").exists()


def test_a_missing_file_falls_back_with_a_warning_or_is_named(path):
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        load_checkpoint(path)
    save_checkpoint(path, content(1))
    path.rename(previous(path))
    with pytest.warns(UserWarning, match="There is no checkpoint at .* after step 1"):
        assert load_checkpoint(path)["step"] == 1


def test_if_both_are_damaged_both_are_refused(path):
    text(path)
    text(previous(path))
    with pytest.raises(CheckpointError, match=r"run\.previous\.pt is no checkpoint"):
        load_checkpoint(path)


def test_what_holds_no_parameters_loads_none(path):
    save_checkpoint(path, content(1))
    with pytest.raises(CheckpointError, match="is the checkpoint of another model"):
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
