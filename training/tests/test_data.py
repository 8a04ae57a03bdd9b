"""Pair lists, batches, offsets, label files, the exported model."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from verlet_train.config import read_config
from verlet_train.dataset import Frames, Trajectory, batches, epoch_order, fit_offsets, load, offset_of
from verlet_train.dynamics import ACCELERATION, baoab_step
from verlet_train.export import model_config, write_model
from verlet_train.neighbors import pair_list
from verlet_train.painn import PaiNN, energy_and_forces
from verlet_train.structures import BOX_SQUEEZE, clearance, pack_box, pack_cluster
from verlet_train.teacher import GFN2

CONFIG = """
name = "tiny"
title = "a test"
seed = 1
data = "data"
elements = [1, 8]
"""


def brute_force(x, cell, cutoff, reach=4):
    pairs = set()
    steps = range(-reach, reach + 1) if cell is not None else [0]
    for a in steps:
        for b in steps:
            for c in steps:
                image = np.array([a, b, c]) @ cell if cell is not None else np.zeros(3)
                d = np.linalg.norm(x[None] + image - x[:, None], axis=-1)
                for i, j in np.argwhere(d < cutoff):
                    if i != j or (a, b, c) != (0, 0, 0):
                        pairs.add((i, j, *np.round(x[j] + image - x[i], 6)))
    return pairs


@pytest.mark.parametrize("cell", [None, np.diag([4.0, 5.0, 6.0]), np.array([[4.0, 0, 0], [1.5, 4, 0], [-1, 0.7, 5]])])
def test_pair_list_finds_every_image(cell):
    x = np.random.default_rng(0).uniform(-6, 6, (2, 5, 3))  # unwrapped on purpose
    frame, i, j, shift = pair_list(torch.as_tensor(x), 4.5, None if cell is None else torch.as_tensor(cell))
    for k in range(2):
        of = frame == k
        vectors = x[k][j[of]] - x[k][i[of]] + shift[of].numpy()
        found = {(int(a), int(b), *np.round(v, 6)) for a, b, v in zip(i[of], j[of], vectors)}
        assert found == brute_force(x[k], cell, 4.5, 7)
        assert len(found) == int(of.sum())


def trajectories() -> list[Trajectory]:
    rng = np.random.default_rng(4)
    found = []
    for atoms in (pack_cluster({"water": 1}, rng), pack_cluster({"water": 3}, rng), pack_box({"water": 4}, 1.0, rng)):
        x = atoms.positions + rng.normal(0, 0.05, (4, len(atoms), 3))
        cell = np.array(atoms.cell) if atoms.pbc.all() else None
        found.append(
            Trajectory(
                "w",
                "train",
                300,
                atoms.numbers,
                x.astype(np.float32),
                -46.0 * len(atoms) + np.arange(4.0),
                rng.normal(size=x.shape).astype(np.float32),
                cell,
            )
        )
    return found


def test_padded_batches_give_each_frame_its_own_energy_and_forces(small_network):
    model = small_network.float()
    sets = trajectories()
    offsets = fit_offsets(sets, [1, 8], GFN2.free_atoms())
    frames = Frames(sets, offsets, model.cutoff)
    queue = batches(frames, np.random.default_rng(0).permutation(len(frames)), 5, 40, 4000)
    seen = []
    for s in range(len(queue)):
        atom, slot, pair, i, j, frame = queue.rows(s)
        energies, forces = energy_and_forces(
            model, frames.numbers[atom], frames.positions[atom], i, j, frames.shifts[pair]
        )
        totals = torch.zeros(len(frame)).index_add(0, slot, energies)
        assert forces[frames.numbers[atom] == 0].abs().max() == 0
        for k, f in enumerate(frame.tolist()):
            if f == len(frames):
                continue
            seen.append(f)
            t, local = sets[f // 4], f % 4
            x = torch.as_tensor(t.positions[local])
            _, a, b, shift = pair_list(
                x[None].double(), model.cutoff, None if t.cell is None else torch.as_tensor(t.cell)
            )
            alone, alone_forces = energy_and_forces(model, torch.as_tensor(t.numbers), x, a, b, shift.float())
            assert float(totals[k]) == pytest.approx(float(alone.sum()), abs=1e-4)
            torch.testing.assert_close(forces[slot == k], alone_forces, atol=1e-4, rtol=1e-4)
    assert sorted(seen) == list(range(len(frames)))


def test_an_epoch_repeats_boxes_and_nothing_else():
    frames = Frames(trajectories(), {1: 0.0, 8: 0.0}, 4.0)  # four frames of each of two clusters, four of a box
    order = epoch_order(frames, 3, np.random.default_rng(0))
    assert np.bincount(order).tolist() == [1] * 8 + [3] * 4
    assert (order != np.sort(order)).any()


def test_offsets_leave_small_energies():
    sets = trajectories()
    offsets = fit_offsets(sets, [1, 8], GFN2.free_atoms())
    frames = Frames(sets, offsets, 4.0)
    assert frames.energies.abs().max() < 5.0  # of energies of hundreds
    each = [(t.energies - offset_of(t.numbers, offsets)) / len(t.numbers) for t in sets]
    np.testing.assert_allclose(frames.energy_per_atom(), (np.min(each), np.max(each)), atol=1e-6)


def test_packings_keep_clear():
    rng = np.random.default_rng(5)
    atoms = pack_cluster({"ethanol": 1, "water": 3}, rng)
    order = np.split(np.arange(len(atoms)), np.flatnonzero(np.diff(_molecule_of(atoms))) + 1)
    for a in range(len(order)):
        for b in range(a):
            assert clearance(atoms[order[a]], atoms[order[b]]) >= 0


@pytest.mark.parametrize(
    "molecules, density", [({"ethanol": 1, "water": 13}, 0.95), ({"water": 16}, 1.0), ({"water": 16}, 1.15)]
)
def test_boxes_never_overlap(molecules, density):
    """All pairs of molecules and their images; a box made in one attempt often fails this with ethanol in it."""
    sizes = [{"ethanol": 9, "water": 3}[name] for name, count in molecules.items() for _ in range(count)]
    ends = np.cumsum(sizes)
    for seed in range(8):
        box = pack_box(molecules, density, np.random.default_rng(seed))
        assert len(box) == ends[-1]
        parts = [box[end - size : end] for end, size in zip(ends, sizes)]
        rooms = [clearance(a, b, np.diag(box.cell)) for k, a in enumerate(parts) for b in parts[:k]]
        assert min(rooms) >= -BOX_SQUEEZE - 1e-9


def test_a_box_too_dense_to_pack_says_so():
    with pytest.raises(ValueError, match="2 ethanol and 6 water at 2.5 g/cm³ overlapped in each of 50 .* lower"):
        pack_box({"ethanol": 2, "water": 6}, 2.5, np.random.default_rng(0))


def _molecule_of(atoms):
    """Molecules by bonds: which connected piece each atom belongs to."""
    bonded = atoms.get_all_distances() < 1.6
    piece = np.arange(len(atoms))
    for _ in range(len(atoms)):
        piece = np.array([piece[bonded[k]].min() for k in range(len(atoms))])
    return piece


def test_verlet_keeps_the_energy_of_a_spring():
    x, v, m = np.array([[1.0, 0, 0]]), np.zeros((1, 3)), np.array([[1.0]])
    force = lambda x: -5.0 * x
    f, energies = force(x), []
    for _ in range(2000):
        x, v, f = baoab_step(x, v, f, force, m, 0.1, 0.0, 0.0, None)
        energies.append(2.5 * (x**2).sum() + 0.5 * (v**2).sum() / ACCELERATION)
    assert np.ptp(energies) < 1e-3 * energies[0]


def test_export_round_trip(tmp_path):
    (tmp_path / "tiny.toml").write_text(CONFIG)
    config = read_config(tmp_path / "tiny.toml")
    model = PaiNN()
    path = tmp_path / "tiny.safetensors"
    checkpoint = {
        "offsets": {1: -1.5, 8: -2.5},
        "shortest": {(1, 8): 0.81234},
        "energy_per_atom": (-0.12345, 0.67891),
    }
    write_model(path, model, model_config(config, checkpoint, "a test"))
    with safe_open(path, "pt") as file:
        again = PaiNN()
        again.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        described = json.loads(file.metadata()["config"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert described["energy_offset"] == {"per_element": {"H": -1.5, "O": -2.5}}
    assert described["domain"] == {"shortest_distance": {"H-O": 0.8123}, "energy_per_atom": [-0.1235, 0.679]}
    assert "repulsion" not in described
    assert not again.representation.embedding.weight[0].any()


def test_a_repulsion_is_asked_for(tmp_path):
    (tmp_path / "tiny.toml").write_text(CONFIG + "[repulsion]\nonset = 0.7\n")
    checkpoint = {"offsets": {1: 0.0, 8: 0.0}, "shortest": {}, "energy_per_atom": (0.0, 0.0)}
    described = model_config(read_config(tmp_path / "tiny.toml"), checkpoint, "a test")
    assert described["repulsion"] == {"kind": "zbl", "onset": 0.7}
    for bad in ('kind = "buckingham"', "onset = 1.0"):
        (tmp_path / "tiny.toml").write_text(CONFIG + f"[repulsion]\n{bad}\n")
        with pytest.raises(ValueError, match="repulsion"):
            read_config(tmp_path / "tiny.toml")


def test_unknown_keys_are_named(tmp_path):
    (tmp_path / "bad.toml").write_text(CONFIG + "[training]\nstep = 5\n")
    with pytest.raises(ValueError, match="step"):
        read_config(tmp_path / "bad.toml")


def test_labels_survive_and_load(tmp_path):
    pytest.importorskip("tblite")
    from verlet_train.generate import jobs, run_all, run_job

    (tmp_path / "tiny.toml").write_text(
        CONFIG
        + '[[contacts]]\nsystem = "water2"\npair = ["water", "water"]\nruns = 1\nframes = 2\ndistance = [2.8, 3.5]\n'
    )
    config = read_config(tmp_path / "tiny.toml")
    config.data.mkdir()
    (job,) = jobs(config)
    assert run_job(job) == (2, 0, "")
    (first,) = load(config.data, 50.0)
    job.path.unlink()
    run_all(iter([job]), 1)
    (second,) = load(config.data, 50.0)
    np.testing.assert_array_equal(first.positions, second.positions)  # the same seed, the same frames
    assert abs(first.forces.sum(1)).max() < 1e-4
    written = job.path.stat().st_mtime_ns
    run_all([job], 1)
    assert job.path.stat().st_mtime_ns == written  # what exists is left alone
