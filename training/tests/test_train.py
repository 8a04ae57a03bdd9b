"""Training end to end, on labels that another small network made."""

import itertools
import re

import numpy as np
import pytest
import torch

from verlet_train.checkpoint import load_network, load_student
from verlet_train.config import Training, read_config
from verlet_train.dataset import Frames, Trajectory, batches, load
from verlet_train.evaluate import table
from verlet_train.export import model_config, write_model
from verlet_train.problem import InputError
from verlet_train.structures import pack_box, pack_cluster
from verlet_train.student import Student, sample
from verlet_train.train import Session, Step, compiled, train

CONFIG = """
name = "tiny"
title = "a test"
seed = 1
data = "data"
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


@pytest.fixture
def labelled(tmp_path, small_network):
    """A configuration, with labels that another network made."""
    (tmp_path / "tiny.toml").write_text(CONFIG)
    (tmp_path / "data").mkdir()
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
    return read_config(tmp_path / "tiny.toml")


def test_training_learns_and_its_checkpoint_goes_on(tmp_path, labelled, capsys):
    checkpoint = tmp_path / "a.pt"
    errors = []
    for start in (None, checkpoint):
        train(labelled, checkpoint, Session(start=start))
        model, saved = load_student(labelled, checkpoint)
        (row,) = table(model, saved["offsets"], load(labelled.data, 20.0))
        errors.append(row["force_mae"])
    spread = 1e3 * np.abs(np.load(tmp_path / "data" / "test.npz")["forces"]).mean()
    assert errors[0] < 0.6 * spread
    assert errors[1] < errors[0]
    assert saved["step"] == labelled.training.steps
    assert re.search(r"40 frames, 240 atoms", capsys.readouterr().out)


@pytest.fixture
def clock(monkeypatch):
    """Every look at the clock takes a second; training looks once a step."""
    ticks = itertools.count()
    monkeypatch.setattr("verlet_train.train.time.time", lambda: float(next(ticks)))


def test_training_in_sessions_is_training_in_one_go(tmp_path, labelled, clock, capsys):
    """To the last bit: weights, averages, moments; paused twice, at the end of an epoch (of five steps) and within one."""
    train(labelled, tmp_path / "whole.pt", Session(learning_rate=2e-3))
    parts = tmp_path / "parts.pt"
    train(labelled, parts, Session(learning_rate=2e-3, pause_after=52.5))
    for paused, pause_after in [(50, 46.5), (94, float("inf"))]:
        assert f"paused at step {paused} of 150: go on with --resume {parts}" in capsys.readouterr().out
        train(labelled, parts, Session(resume=parts, pause_after=pause_after))
    whole, parts = (torch.load(p, weights_only=True) for p in (tmp_path / "whole.pt", parts))
    assert whole["step"] == parts["step"] == 150
    for name, weights in whole["weights"].items():
        assert torch.equal(weights, parts["weights"][name])
    for ours, theirs in zip(whole["state"]["moments"], parts["state"]["moments"], strict=True):
        assert ours[0] == theirs[0] == 150
        assert torch.equal(ours[1], theirs[1]) and torch.equal(ours[2], theirs[2])


def test_a_time_limit_counts_all_sessions(tmp_path, labelled, clock, capsys):
    train(labelled, tmp_path / "a.pt", Session(time_limit=100.0, pause_after=40.0))
    train(labelled, tmp_path / "a.pt", Session(resume=tmp_path / "a.pt"))
    assert 92 <= torch.load(tmp_path / "a.pt", weights_only=True)["step"] <= 100
    assert "paused" in capsys.readouterr().out


def test_what_would_change_a_resumed_training_is_refused(tmp_path, labelled, clock):
    a = tmp_path / "a.pt"
    train(labelled, a, Session(pause_after=5.0))
    with pytest.raises(InputError, match="give one of them"):
        train(labelled, a, Session(resume=a, start=a))
    (tmp_path / "tiny.toml").write_text(CONFIG.replace("batch_frames = 8", "batch_frames = 7"))
    with pytest.raises(InputError, match=r"batch_frames \(then 8, now 7\).*--start"):
        train(read_config(tmp_path / "tiny.toml"), a, Session(resume=a))
    (tmp_path / "tiny.toml").write_text(CONFIG.replace("features = 16", "features = 8"))
    with pytest.raises(InputError, match="network is not that"):
        train(read_config(tmp_path / "tiny.toml"), a, Session(resume=a))
    (tmp_path / "data" / "more.npz").write_bytes((tmp_path / "data" / "train.npz").read_bytes())
    with pytest.raises(InputError, match="labels are not those.*--start"):
        train(labelled, a, Session(resume=a))


def test_a_compiled_step_has_the_same_gradients(small_network):
    """Without the code generator (`backend="eager"`), whose work is PyTorch's to test: the recorded graph is ours."""
    model = small_network.float().requires_grad_(True)
    rng = np.random.default_rng(1)
    box = pack_box({"water": 4}, 1.0, rng)
    x = (box.positions + rng.normal(0, 0.05, (4, 12, 3))).astype(np.float32)
    forces = rng.normal(size=x.shape).astype(np.float32)
    box = Trajectory("w", "train", 0, box.numbers, x, rng.normal(size=4), forces, np.array(box.cell))
    frames = Frames([box], {1: 0.0, 8: 0.0}, model.cutoff)
    queue = batches(frames, np.arange(4), 3, 60, 4000)
    step = Step(model, frames, Training(), queue)
    recorded = compiled(step.loss_and_gradients, step.gathered(), backend="eager")
    for row in range(len(queue)):
        for buffer, new in zip(step.buffers, queue.rows(row)):
            buffer.copy_(new)
        plain = step.loss_and_gradients(*step.gathered())
        assert max(float(t.abs().max()) for t in plain[1:]) > 0
        for ours, theirs in zip(plain, recorded(*step.gathered()), strict=True):
            torch.testing.assert_close(ours, theirs)
        with torch.no_grad():  # other weights must be seen by the recorded graph too
            for parameter in model.parameters():
                parameter.mul_(1.1)


def test_a_student_chooses_frames_entry_by_entry(tmp_path, small_network):
    entry = '[[sampled]]\nsystem = "%s"\nmolecules = { water = 1 }\ntemperatures = [300]\nruns = 2\nframes = 3\n'
    entry += "spacing_fs = 1.0\nequilibration_fs = 1.0\n"
    (tmp_path / "tiny.toml").write_text(CONFIG + entry % "first" + entry % "second" + "round = 2\n")
    config = read_config(tmp_path / "tiny.toml")
    made = list(sample(config, small_network, {1: -10.0, 8: -100.0}, round=1))
    assert [job.entry.system for job in made] == ["first", "first"]
    assert [job.path.name for job in made] == [f"train-first-sampled-300K-{k:03d}.npz" for k in range(2)]
    assert all(job.given_positions.shape == (3, 3, 3) for job in made)
    assert not np.array_equal(made[0].given_positions, made[1].given_positions)


def test_a_model_file_has_the_errors_of_its_checkpoint(tmp_path, labelled, capsys):
    checkpoint = tmp_path / "a.pt"
    train(labelled, checkpoint, Session(steps=3))
    model, saved = load_student(labelled, checkpoint)
    file = tmp_path / "a.safetensors"
    write_model(file, model, model_config(labelled, saved, "a test"))
    trajectories = load(labelled.data, float("inf"))
    of_file, of_checkpoint = (
        table(*load_network(labelled, path), trajectories, "train") for path in (file, checkpoint)
    )
    assert of_file and of_file == of_checkpoint


def test_a_model_file_begins_a_schedule_as_its_checkpoint_does(tmp_path, labelled):
    train(labelled, tmp_path / "a.pt", Session(steps=3))
    model, saved = load_student(labelled, tmp_path / "a.pt")
    file = tmp_path / "a.safetensors"
    write_model(file, model, model_config(labelled, saved, "a test"))
    begun = []
    for start in (file, tmp_path / "a.pt"):
        train(labelled, tmp_path / "b.pt", Session(start=start, steps=3))
        begun.append(load_student(labelled, tmp_path / "b.pt")[1])
    of_file, of_checkpoint = begun
    assert of_file["offsets"] == of_checkpoint["offsets"] == saved["offsets"]
    assert all(torch.equal(of_file["weights"][name], tensor) for name, tensor in of_checkpoint["weights"].items())


def test_a_model_file_of_another_network_or_other_elements_is_refused(tmp_path, labelled):
    train(labelled, tmp_path / "a.pt", Session(steps=3))
    file = tmp_path / "a.safetensors"
    model, saved = load_student(labelled, tmp_path / "a.pt")
    write_model(file, model, model_config(labelled, saved, "a test"))
    for changed in ("features = 8", "features = 16\nnorm_epsilon = 1e-2", "features = 16\nbessel = 8"):
        (tmp_path / "tiny.toml").write_text(CONFIG.replace("features = 16", changed))
        with pytest.raises(InputError, match="not that of .network."):
            train(read_config(tmp_path / "tiny.toml"), tmp_path / "b.pt", Session(start=file))
    (tmp_path / "tiny.toml").write_text(CONFIG.replace("[1, 8]", "[1, 6, 8]"))
    with pytest.raises(InputError, match=r"does not know the elements \[6\]"):
        load_network(read_config(tmp_path / "tiny.toml"), file)


def test_a_missing_data_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="generate"):
        load(tmp_path, 20.0)
