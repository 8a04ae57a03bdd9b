"""Jobs about the molecules of a structures file: placements, strains, dynamics, splits."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes

from verlet_train.config import read_config
from verlet_train.dynamics import BOLTZMANN
from verlet_train.generate import jobs, run_job
from verlet_train.labels import Labels
from verlet_train.molecules.library import Molecule, read_library, write_library
from verlet_train.placing import hydrogen_bonded, radii, slide, stacked, unit
from verlet_train.problem import InputError
from verlet_train.sampling import GRID, _dynamics, stretched
from verlet_train.teacher import GFN2

CONFIG = """
name = "tiny"
title = "a test"
seed = 5
data = "labels"
elements = [1, 6, 8]
[molecules]
file = "structures.npz"
"""


def member(name: str, smiles: str, split: str) -> Molecule:
    atoms = ase_molecule(name)
    distance = atoms.get_all_distances()
    bonds = np.argwhere(np.triu(distance < np.where(np.add.outer(atoms.numbers, atoms.numbers) > 9, 1.65, 1.2), 1))
    bonds = np.array([b for b in bonds if not (atoms.numbers[b] == 1).all()])
    return Molecule(smiles, "class of " + smiles, split, atoms.numbers, bonds, atoms.positions[None])


@pytest.fixture
def folder(tmp_path):
    library = [
        member("CH3OH", "CO", "train"),
        member("CH3CH2OH", "CCO", "train"),
        member("H2CO", "C=O", "train"),
        member("CH3COOH", "CC(=O)O", "test"),
        member("C2H6", "CC", "test"),
    ]
    write_library(tmp_path / "structures.npz", library)
    return tmp_path


def configured(folder, text):
    (folder / "tiny.toml").write_text(CONFIG + text)
    return read_config(folder / "tiny.toml")


@pytest.mark.parametrize("covalent, factor", [(True, 0.6), (True, 1.3), (False, 0.7), (False, 1.8)])
def test_sliding_stops_where_the_first_atoms_touch(covalent, factor):
    rng = np.random.default_rng(1)
    a, b = ase_molecule("C6H6"), ase_molecule("CH3COOH")
    of = [radii(x.numbers, covalent) for x in (a, b)]
    for _ in range(20):
        direction = unit(rng)
        moved = slide(a.positions, of[0], b.positions, of[1], direction, factor)
        shift = moved - b.positions
        np.testing.assert_allclose(shift, np.outer(np.ones(len(b)), shift[0] @ direction * direction), atol=1e-9)
        ratio = np.linalg.norm(a.positions[:, None] - moved[None], axis=-1) / (of[0][:, None] + of[1][None])
        assert ratio.min() == pytest.approx(factor)
        further = np.linalg.norm(a.positions[:, None] - (moved + 1e-3 * direction)[None], axis=-1)
        assert (further / (of[0][:, None] + of[1][None])).min() > factor  # outside, not inside


def test_stacked_rings_are_parallel_and_bonds_point_at_acceptors():
    rng = np.random.default_rng(2)
    ring = ase_molecule("C6H6").positions
    for _ in range(5):
        one, two, _ = stacked(ring, ring, rng)
        assert np.ptp(one[:, 2]) < 1e-9 and np.ptp(two[:, 2]) < 1e-9
    methanol = member("CH3OH", "CO", "train")
    x = methanol.conformers[0]
    oxygen = int(np.flatnonzero(methanol.numbers == 8)[0])
    hydrogen = next(
        int(b) for pair in methanol.bonds for a, b in (pair, pair[::-1]) if a == oxygen and methanol.numbers[b] == 1
    )
    one, two, direction = hydrogen_bonded(x, x, rng, methanol, methanol)
    of = radii(methanol.numbers, False)
    two = slide(one, of, two, of, direction, 0.7)
    arms = one[oxygen] - one[hydrogen], two[oxygen] - one[hydrogen]
    assert np.dot(*arms) / np.prod([np.linalg.norm(a) for a in arms]) == pytest.approx(-1, abs=1e-9)
    assert 1.6 < np.linalg.norm(arms[1]) < 2.5
    ethane = member("C2H6", "CC", "train")
    assert hydrogen_bonded(ethane.conformers[0], x, rng, ethane, methanol) is None


def test_stretching_moves_the_smaller_side_and_only_one_atom_of_a_ring():
    ethanol = member("CH3CH2OH", "CCO", "train")
    x = ethanol.conformers[0]
    carbon_oxygen = next(b for b in ethanol.bonds if set(ethanol.numbers[b]) == {6, 8})
    y = stretched(x, ethanol.bonds, carbon_oxygen, 1.3)
    a, b = carbon_oxygen
    assert np.linalg.norm(y[a] - y[b]) == pytest.approx(1.3 * np.linalg.norm(x[a] - x[b]))
    moved = np.linalg.norm(y - x, axis=1) > 1e-12
    assert sorted(ethanol.numbers[moved]) == [1, 8]  # the hydroxyl group as a whole
    ring = member("C6H6", "c1ccccc1", "train")
    bond = next(b for b in ring.bonds if (ring.numbers[b] == 6).all())
    y = stretched(ring.conformers[0], ring.bonds, bond, 0.8)
    assert (np.linalg.norm(y - ring.conformers[0], axis=1) > 1e-12).sum() == 1


class Springs(Calculator):
    """Every atom bound to the origin."""

    implemented_properties = ("energy", "forces")
    stiffness = 100.0  # eV/Å², the stiffest bonds there are

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions
        self.results = {"energy": 0.5 * self.stiffness * (x**2).sum(), "forces": -self.stiffness * x}


def test_dynamics_of_equal_masses_samples_the_temperature():
    """⟨k x²⟩ = k_B T for hydrogen as for chlorine, also for the stiffest bond; on the grid, labels of what is kept."""
    atoms = Atoms("HCl" * 200, positions=np.zeros((400, 3)), calculator=Springs())
    labels = Labels(atoms)
    _dynamics(labels, atoms.positions, 600.0, 1200.0, 300, 200, 5, np.random.default_rng(3))
    x = np.array(labels.positions, float)
    assert x.shape == (200, 400, 3)
    np.testing.assert_array_equal(x, np.round(x / GRID) * GRID)
    for element in (slice(0, None, 2), slice(1, None, 2)):
        assert Springs.stiffness * (x[:, element] ** 2).mean() == pytest.approx(BOLTZMANN * 600.0, rel=0.02)
    np.testing.assert_allclose(labels.forces, -Springs.stiffness * x, rtol=1e-6)


def test_diverse_frames_lie_further_apart_and_are_labelled():
    """Also: the run itself is the same, so the frames are some of its steps."""
    kept = {}
    for diverse, every, frames in [(False, 1, 60), (False, 6, 10), (True, 6, 10)]:
        atoms = Atoms("C3", positions=[[0, 0, 0], [1.5, 0, 0], [0, 1.5, 0]], calculator=Springs())
        labels = Labels(atoms)
        _dynamics(labels, atoms.positions, 300.0, 600.0, 5, frames, every, np.random.default_rng(3), diverse)
        kept[diverse, every] = np.array(labels.positions)
        np.testing.assert_allclose(labels.forces, -Springs.stiffness * kept[diverse, every], rtol=1e-5)

    def nearest(x):
        upper = np.triu_indices(3, 1)
        shape = 1 / np.linalg.norm(x[:, upper[0]] - x[:, upper[1]], axis=-1)
        apart = np.linalg.norm(shape[:, None] - shape[None], axis=-1)
        return (apart + np.diag(np.full(len(x), np.inf))).min()

    assert len(kept[True, 6]) == 10
    assert {x.tobytes() for x in kept[True, 6]} <= {x.tobytes() for x in kept[False, 1]}
    assert nearest(kept[True, 6]) > 1.5 * nearest(kept[False, 6])


def test_absurd_frames_are_refused_and_counted():
    class Failing(Springs):
        def calculate(self, *given, **named):
            raise CalculationFailed("no convergence")

    labels = Labels(Atoms("H", calculator=Springs()))
    labels.label(np.array([[0.1, 0, 0]]))
    labels.label(np.array([[1.5, 0, 0]]))  # 150 eV/Å
    labels.keep(np.zeros((1, 3)), np.nan, np.zeros((1, 3)))
    labels.keep(np.zeros((1, 3)), 0.0, np.full((1, 3), np.nan))
    assert (len(labels.energies), labels.refused) == (1, 3)
    assert labels.reason == "a force beyond 100.0 eV/Å, or no number"
    failing = Labels(Atoms("H", calculator=Failing()))
    failing.label(np.zeros((1, 3)))
    _dynamics(failing, np.zeros((1, 3)), 300.0, 300.0, 1, 1, 1, np.random.default_rng(0))
    assert (len(failing.energies), failing.refused) == (0, 2)
    assert failing.reason == "CalculationFailed: no convergence"


ENTRIES = """
[[thermal]]
temperatures = [300, 600]
runs = 2
frames = 2
[[strained]]
runs = 1
frames = 4
rattle = [0.02, 0.1]
stretch = [0.75, 1.4]
[[pairs]]
pairs = 30
frames = 3
[[clusters]]
family = "solutes in water"
solutes = 1
waters = [1, 2]
temperatures = [300]
runs = 30
frames = 2
[[clusters]]
family = "water clusters"
solutes = 0
waters = [1, 3]
temperatures = [300]
runs = 30
frames = 2
"""


def test_no_test_molecule_is_in_a_training_job(folder):
    made = jobs(configured(folder, ENTRIES))
    assert len(made) == 5 * 2 + 5 + 30 + 30 + 30
    assert len({job.path for job in made}) == len(made)
    of = {"train": {"CO", "CCO", "C=O", "O"}, "test": {"CC(=O)O", "CC", "O"}}
    for job in made:
        assert {m.smiles for m in job.members} <= of[job.split]
    for kind in ("pairs", "solutes in water", "water clusters"):
        assert {job.split for job in made if job.family == kind} == {"train", "test"}
    assert {job.temperature for job in made if job.path.stem.startswith("train-thermal")} == {300, 600}
    again = jobs(configured(folder, ENTRIES))
    assert [(a.path, a.system) for a in again] == [(a.path, a.system) for a in made]


def test_further_molecules_are_for_training_and_for_the_entries_that_name_them(folder):
    library = read_library(folder / "structures.npz")
    main = jobs(configured(folder, ENTRIES))
    more = [member("CH4", "C", "reserve"), member("H2O", "O", "further"), member("C2H4", "C=C", "further")]
    write_library(folder / "structures.npz", library + more)
    entry = '[[thermal]]\nmolecules = "further"\ntemperatures = [300, 450]\nruns = 1\nframes = 2\n'
    made = jobs(configured(folder, ENTRIES + entry))
    new = {job.path.stem: (job.system, job.split, job.temperature) for job in made if "thermal1" in job.path.stem}
    assert new == {
        "train-thermal1-00006-0": ("O", "train", 300),
        "train-thermal1-00007-0": ("C=C", "train", 450),
    }
    others = {(job.path, job.system) for job in made if "thermal1" not in job.path.stem}
    assert others == {(job.path, job.system) for job in main}
    write_library(folder / "structures.npz", library)
    with pytest.raises(InputError, match="no further molecules.*further_fraction"):
        jobs(configured(folder, entry))
    with pytest.raises(InputError, match="'reserve' is unknown"):
        configured(folder, entry.replace("further", "reserve"))


def test_every_kind_of_job_labels_what_it_stores(folder):
    pytest.importorskip("tblite")
    made = {}
    for job in jobs(configured(folder, ENTRIES)):
        made.setdefault(type(job.entry).__name__ + job.family[:5], job)
    for job in made.values():
        kept, refused, _ = run_job(job)
        assert kept + refused == job.entry.frames
        with np.load(job.path) as file:
            data = {key: file[key] for key in file.files}
        assert (str(data["system"]), str(data["family"]), int(data["refused"])) == (job.system, job.family, refused)
        run_job(job)
        with np.load(job.path) as file:
            np.testing.assert_array_equal(file["positions"], data["positions"])
        for x, energy, forces in zip(data["positions"], data["energies"], data["forces"]):
            np.testing.assert_array_equal(x, np.round(x / GRID) * GRID)
            atoms = Atoms(data["numbers"], x, calculator=GFN2.make())
            assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-4)
            np.testing.assert_allclose(atoms.get_forces(), forces, atol=5e-3)


def test_molecules_must_be_configured_and_fit(folder):
    with pytest.raises(ValueError, match="no train molecule of at most 2 atoms"):
        jobs(configured(folder, "[[pairs]]\npairs = 1\nframes = 1\nlargest = 2\n"))
    (folder / "bare.toml").write_text(CONFIG.split("[molecules]")[0] + "[[pairs]]\npairs = 1\nframes = 1\n")
    with pytest.raises(ValueError, match=r"no \[molecules\]"):
        jobs(read_config(folder / "bare.toml"))
