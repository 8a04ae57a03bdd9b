"""Shards hold what the label files hold, in 16 bits where that loses nothing that matters."""

import numpy as np
import pytest
from ase import Atoms

from verlet_train.config import Boxes
from verlet_train.dataset import load
from verlet_train.labels import Job, Labels
from verlet_train.shards import GRID, pack
from verlet_train.teacher import GFN2


def write(folder, name, frames=3, atoms=5, cell=None, grid=True, family=""):
    rng = np.random.default_rng([6, frames, atoms])
    labels = Labels(Atoms("C" * atoms, cell=cell, pbc=cell is not None))
    for _ in range(frames):
        x = rng.normal(0, 5, (atoms, 3))
        labels.keep(np.round(x / GRID) * GRID if grid else x, -100 * rng.random(), rng.normal(0, 1.5, (atoms, 3)))
    entry = Boxes(name, {}, [], 1, frames)
    labels.save(Job(entry, 300, 0, 1, GFN2, folder / f"{name}.npz", family=family))


def test_a_shard_is_read_as_the_files_were(tmp_path):
    write(tmp_path / "labels", "a", family="class")
    write(tmp_path / "labels", "b", atoms=2, frames=4, grid=False)
    write(tmp_path / "labels", "c", cell=np.diag([9.0, 8.0, 7.0]))
    write(tmp_path / "labels", "d", frames=0)
    write(tmp_path / "labels", "e", atoms=1, cell=np.eye(3) * 5, grid=False)
    ((_, frames),) = pack(tmp_path / "labels", tmp_path / "shards", 10**7)
    assert frames == 13
    before, after = load(tmp_path / "labels", 100.0), load(tmp_path / "shards", 100.0)
    assert [t.family for t in after] == ["class", "b", "c", "e"]
    for a, b in zip(before, after, strict=True):
        assert (a.system, a.family, a.split, a.temperature) == (b.system, b.family, b.split, b.temperature)
        for key in ("numbers", "positions", "energies"):
            np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
            assert getattr(a, key).dtype == getattr(b, key).dtype
        np.testing.assert_allclose(a.forces, b.forces, rtol=1 / 2048, atol=1e-7)
        assert (a.cell is None) == (b.cell is None)
        if a.cell is not None:
            np.testing.assert_array_equal(a.cell, b.cell)


def test_rounding_of_forces_is_far_below_the_errors_of_a_network(tmp_path):
    """Thermal forces are 1.5 eV/Å a component (root mean square, at 600 K): the mean rounding is below 0.5 meV/Å."""
    write(tmp_path / "labels", "a", frames=400, atoms=20)
    list(pack(tmp_path / "labels", tmp_path / "shards", 10**7))
    (a,), (b,) = load(tmp_path / "labels", 100.0), load(tmp_path / "shards", 100.0)
    error = np.abs(a.forces - b.forces)
    assert 0 < error.mean() < 0.5e-3
    assert (tmp_path / "shards" / "shard-000.npz").stat().st_size < 12.5 * a.forces.size / 3


def test_shards_keep_to_their_size_and_replace_older_ones(tmp_path):
    for k in range(12):
        write(tmp_path / "labels", f"t{k:02d}", frames=20, atoms=10)
    made = list(pack(tmp_path / "labels", tmp_path / "shards", 16_000))
    assert len(made) > 2 and sum(frames for _, frames in made) == 240
    assert all(path.stat().st_size <= 16_000 for path, _ in made)
    assert len(list(pack(tmp_path / "labels", tmp_path / "shards", 10**6))) == 1
    assert [p.name for p in sorted((tmp_path / "shards").iterdir())] == ["shard-000.npz"]
    assert len(load(tmp_path / "shards", 100.0)) == 12
    list(pack(tmp_path / "labels", tmp_path / "shards", 10**6, "other"))
    assert len(load(tmp_path / "shards", 100.0)) == 24


def test_packing_refuses_nothing_and_its_own_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="verlet-train generate"):
        list(pack(tmp_path, tmp_path / "shards", 10**6))
    write(tmp_path / "labels", "a")
    with pytest.raises(ValueError, match="another folder"):
        list(pack(tmp_path / "labels", tmp_path / "labels", 10**6))
