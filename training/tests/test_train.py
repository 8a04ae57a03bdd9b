"""Training end to end, on labels that another small network made."""

import re

import numpy as np
import pytest
import torch

from verlet_train.config import read_config
from verlet_train.dataset import load
from verlet_train.evaluate import table
from verlet_train.structures import pack_cluster
from verlet_train.student import Student
from verlet_train.train import load_student, train

CONFIG = """
name = "tiny"
title = "a test"
seed = 1
data = "data"
method = "none"
elements = [1, 8]
[network]
features = 16
interactions = 2
gaussians = 8
cutoff = 4.0
readout = 8
[training]
steps = 150
warmup_steps = 10
batch_frames = 8
batch_atoms = 80
batch_pairs = 600
ema_decay = 0.9
learning_rate = 3e-3
"""


def test_training_learns_and_its_checkpoint_goes_on(tmp_path, small_network, capsys):
    (tmp_path / "tiny.toml").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    config = read_config(tmp_path / "tiny.toml")
    rng = np.random.default_rng(0)
    atoms = pack_cluster({"water": 2}, rng)
    for split in ("train", "test"):
        x = (atoms.positions + rng.normal(0, 0.05, (40, 6, 3))).astype(np.float32)
        energies, forces = Student(small_network, atoms.numbers, {1: -10.0, 8: -100.0})(torch.as_tensor(x))
        np.savez(
            tmp_path / "data" / f"{split}.npz",
            numbers=atoms.numbers,
            positions=x,
            energies=energies.numpy(),
            forces=forces.numpy().astype(np.float32),
            cell=np.zeros((3, 3)),
            periodic=False,
            system="water2",
            split=split,
            temperature=0,
        )
    checkpoint = tmp_path / "a.pt"
    errors = []
    for start in (None, checkpoint):
        train(config, checkpoint, "cpu", float("inf"), start)
        model, saved = load_student(config, checkpoint)
        (row,) = table(model, saved["offsets"], load(config.data, 20.0))
        errors.append(row["force_mae"])
    spread = 1e3 * np.abs(np.load(tmp_path / "data" / "test.npz")["forces"]).mean()
    assert errors[0] < 0.6 * spread
    assert errors[1] < errors[0]
    assert saved["step"] == config.training.steps
    assert re.search(r"40 frames, 240 atoms", capsys.readouterr().out)


def test_a_missing_data_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="generate"):
        load(tmp_path, 20.0)
