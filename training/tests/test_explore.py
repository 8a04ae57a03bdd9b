"""Exploration: which molecules, which frames, and a whole round with the built engine."""

import dataclasses

import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from ase.io import write

from verlet_train.cli import main
from verlet_train.config import read_config
from verlet_train.dataset import load
from verlet_train.explore import physical, runs_of
from verlet_train.export import model_config, write_model
from verlet_train.molecules.library import read_library, write_library
from verlet_train.painn import PaiNN
from verlet_train.problem import InputError
from verlet_train.selection import chosen

CONFIG = """
name = "tiny"
title = "a test"
seed = 5
data = "labels"
elements = [1, 6, 8]
[network]
features = 16
interactions = 2
gaussians = 8
cutoff = 4.0
readout = 8
[molecules]
file = "structures.npz"
[explore]
molecules = 3
steps = 60
every = 10
frames = 4
"""


@pytest.fixture
def config(tmp_path):
    """Eight molecules of which five are in reserve."""
    names = ["H2O", "CH4", "CH3OH", "H2CO", "CO2", "C2H6", "C2H4", "C2H2"]
    write(tmp_path / "own.xyz", [ase_molecule(name) for name in names])
    splits = ["train", "test", "train"] + ["reserve"] * 5
    library = [dataclasses.replace(m, split=s) for m, s in zip(read_library(tmp_path / "own.xyz"), splits, strict=True)]
    write_library(tmp_path / "structures.npz", library)
    (tmp_path / "tiny.toml").write_text(CONFIG)
    return read_config(tmp_path / "tiny.toml")


def test_rounds_take_molecules_in_reserve_and_others_first(config):
    first, second = runs_of(config, 1), runs_of(config, 2)
    assert all(r.molecule.split == "reserve" for r in first + second)
    names = [r.molecule.smiles for r in first + second]
    assert len(set(names)) == len(set(names[:5])) == 5 and names[5] == names[0]
    assert len({r.name for r in first + second}) == 6
    assert [r.temperature for r in first] == [300, 450, 600]
    for a, b in zip(first, runs_of(config, 1), strict=True):
        assert (a.name, a.seed) == (b.name, b.seed)
        np.testing.assert_array_equal(a.start, b.start)


def test_without_reserve_there_is_nothing_to_explore(config, tmp_path):
    library = read_library(config.structures())
    write_library(config.structures(), [m for m in library if m.split != "reserve"])
    with pytest.raises(InputError, match="no molecule in reserve"):
        runs_of(config, 1)
    (tmp_path / "tiny.toml").write_text(CONFIG.split("[explore]")[0])
    with pytest.raises(InputError, match=r"no \[explore\]"):
        runs_of(read_config(tmp_path / "tiny.toml"), 1)


def test_frames_beyond_a_jump_of_the_energy_are_left_out():
    calm = -300 + 0.3 * np.sin(np.arange(20))
    assert physical(calm, 20, 300.0) == (20, False)
    torn = np.concatenate([calm[:12], [-310.0, -350.0]])
    assert physical(torn, 20, 300.0) == (13, True)
    assert physical(calm[:1], 20, 300.0) == (1, False)


def test_chosen_frames_disagree_and_differ():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(0, 2, (4, 5, 3)), 5, axis=0)  # four shapes, five copies of each
    x += rng.normal(0, 1e-4, x.shape)
    disagreement = np.ones(20)
    disagreement[7] = 1.5
    best = chosen(x, disagreement, 4, [])
    assert 7 in best and {k // 5 for k in best} == {0, 1, 2, 3}
    disagreement[10:] = 1e-9
    assert {k // 5 for k in chosen(x, disagreement, 2, [])} == {0, 1}
    assert {18, 19} <= set(chosen(x, disagreement, 3, [18, 19]))
    assert chosen(x[:2], disagreement[:2], 4, []) == [0, 1]
    assert chosen(x[:0], disagreement[:0], 4, []) == []


@pytest.fixture
def students(config, tmp_path, request):
    import torch

    paths = []
    for seed, scale in [(1, 0.2), (2, 0.2), (3, 40.0)]:
        torch.manual_seed(seed)
        n = config.network
        model = PaiNN(n.features, n.interactions, n.gaussians, n.cutoff, n.readout)
        with torch.no_grad():
            model.output_modules[0].outnet[1].weight.mul_(scale)
        checkpoint = {"offsets": {1: -13.0, 6: -50.0, 8: -105.0}, "shortest": {}, "energy_per_atom": (-1, 1)}
        paths.append(tmp_path / f"{seed}.safetensors")
        write_model(paths[-1], model, model_config(config, checkpoint, "a test"))
    return paths


def test_a_round_labels_what_it_chose_and_goes_on(config, tmp_path, engine, students, capsys):
    pytest.importorskip("tblite")
    calm, other, wild = map(str, students)
    command = ["explore", str(tmp_path / "tiny.toml"), "--engine", str(engine), "--processes", "2", "--students"]
    main([*command, calm, other])
    said = capsys.readouterr().out
    assert "3 jobs, 12 frames, 0 refused" in said and "3 runs, 0 of them torn apart" in said
    trajectories = load(config.data, 100.0)
    reserve = {m.smiles for m in read_library(config.structures()) if m.split == "reserve"}
    assert {t.system for t in trajectories} <= reserve and all(t.split == "train" for t in trajectories)
    assert sorted(p.name[:15] for p in config.data.iterdir()) == ["train-explored1"] * 3
    (first, *_) = sorted(config.data.iterdir())
    before = first.read_bytes()
    first.unlink()
    main([*command, calm, other])
    assert "1 jobs, 4 frames" in capsys.readouterr().out and first.read_bytes() == before
    main([*command, wild, other, "--round", "2"])
    assert "of them torn apart" in (said := capsys.readouterr().out) and "0 of them" not in said


def test_what_cannot_be_used_is_one_sentence(config, tmp_path, students, capsys):
    command = ["explore", str(tmp_path / "tiny.toml"), "--students", str(students[0]), str(students[1]), "--engine"]
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "none")])
    assert "none cannot be started: No such file" in capsys.readouterr().err
    students[1].write_bytes(b"nothing")
    with pytest.raises(SystemExit):
        main([*command, "true"])
    assert "is no model file that" in capsys.readouterr().err
