"""Any ASE calculator as the teacher, any structure file as what it is asked about."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.build import molecule as ase_molecule
from ase.calculators.emt import EMT
from ase.io import write

from verlet_train.cli import main
from verlet_train.config import read_config
from verlet_train.dataset import fit_offsets, load
from verlet_train.generate import jobs, run_all, run_job
from verlet_train.labels import Labels
from verlet_train.molecules.library import read_library
from verlet_train.problem import InputError

CONFIG = """
name = "tiny"
title = "a test"
seed = 5
data = "labels"
elements = %s
[teacher]
%s
[molecules]
file = "own.xyz"
test_fraction = 0.2
"""
RUNS = "[[thermal]]\ntemperatures = [100, 300]\nruns = 5\nframes = 3\n"
RUNS += "[[strained]]\nruns = 5\nframes = 2\nrattle = [0.02, 0.1]\nstretch = [0.8, 1.3]\n"


def configured(folder, elements, teacher, runs=RUNS):
    (folder / "tiny.toml").write_text(CONFIG % (elements, teacher) + runs)
    return read_config(folder / "tiny.toml")


def test_emt_teaches_a_periodic_metal_and_a_cluster(tmp_path):
    copper = bulk("Cu", cubic=True) * (2, 1, 1)
    cluster = Atoms("Cu3", [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0]])
    write(tmp_path / "own.xyz", [copper, cluster], format="extxyz")
    config = configured(tmp_path, "[29]", 'calculator = "ase.calculators.emt.EMT"')
    made = jobs(config)
    assert sorted({(j.system, j.split) for j in made}) == [
        (system, split) for system in ("Cu3", "Cu8") for split in ("test", "train")
    ]
    assert sum(j.split == "test" for j in made) == 2 + 2
    for job in made:
        assert run_job(job) == (job.entry.frames, 0, "")
    trajectories = load(config.data, 50.0)
    for t in trajectories:
        atoms = Atoms(t.numbers, t.positions[-1], cell=t.cell, pbc=t.cell is not None, calculator=EMT())
        assert (t.cell is not None) == (t.system == "Cu8")
        assert atoms.get_potential_energy() == pytest.approx(t.energies[-1], abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), t.forces[-1], atol=1e-5)
    offsets = fit_offsets(trajectories, [29], config.teacher.free_atoms())
    assert abs(offsets[29]) < 5  # EMT counts from the bulk, GFN2-xTB from nothing


def test_a_factory_beside_the_configuration_and_its_refusals(tmp_path, capsys):
    """A teacher for open systems alone: its refusals have a reason, and what had no label is asked for again."""
    write(tmp_path / "own.xyz", [Atoms("Ar2", [[0, 0, 0], [3.8, 0, 0]]), bulk("Ar", "fcc", 5.3, cubic=True)])
    (tmp_path / "my_open_teacher.py").write_text(
        "from ase.calculators.lj import LennardJones\n"
        "class Open(LennardJones):\n"
        "    def calculate(self, atoms=None, *rest):\n"
        "        if atoms.pbc.any():\n"
        "            raise NotImplementedError('no periodic systems')\n"
        "        super().calculate(atoms, *rest)\n"
        "def make(depth):\n"
        "    return Open(epsilon=depth, sigma=3.4, rc=12.0)\n"
    )
    config = configured(tmp_path, "[18]", 'calculator = "my_open_teacher.make"\narguments = { depth = 0.01 }')
    run_all(jobs(config), 1)
    said = capsys.readouterr().out
    assert "25 frames, 20 refused (the last one: NotImplementedError: no periodic systems)" in said
    assert {t.system for t in load(config.data, 50.0)} == {"Ar2"}
    with pytest.raises(InputError, match="labelled no frame.*no periodic systems"):
        run_all(jobs(config), 1)


@pytest.mark.parametrize(
    "teacher, message",
    [
        ('calculator = "EMT"', "write where to import it from"),
        ('calculator = "no_such_program.Calculator"', "no module 'no_such_program'"),
        ('calculator = "ase.calculators.emt.EMTT"', "has no 'EMTT'"),
        ('calculator = "ase.build.bulk"\narguments = { fast = 1 }', r"bulk\(fast=1\) fails with TypeError"),
        ('calculator = "builtins.dict"', "dict makes is no ASE calculator"),
        ('calculater = "ase.calculators.emt.EMT"', r"\[teacher\]: unknown key \['calculater'\]"),
    ],
)
def test_a_bad_teacher_is_one_sentence(tmp_path, capsys, teacher, message):
    write(tmp_path / "own.xyz", Atoms("Ar"))
    (tmp_path / "tiny.toml").write_text(CONFIG % ("[18]", teacher) + RUNS)
    with pytest.raises(SystemExit):
        main(["generate", str(tmp_path / "tiny.toml")])
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "tiny.toml").teacher.make()
    error = capsys.readouterr().err
    assert error.startswith("error: [teacher]") and error.count("\n") == 1


def test_frames_of_one_molecule_are_its_conformers(tmp_path):
    ethanol, methane = ase_molecule("CH3CH2OH"), ase_molecule("CH4")
    turned = ethanol.copy()
    turned.rattle(0.05, seed=1)
    isomer = ase_molecule("CH3OCH3")[[0, 2, 1, 3, 4, 5, 6, 7, 8]]
    isomer = isomer[np.argsort(-isomer.numbers, kind="stable")]
    other = ethanol[np.argsort(-ethanol.numbers, kind="stable")]
    write(tmp_path / "own.xyz", [ethanol, methane, turned, isomer, other])
    read = read_library(tmp_path / "own.xyz")
    assert [(m.smiles, len(m.conformers), len(m.bonds), m.split) for m in read] == [
        ("C2H6O", 2, 8, ""),
        ("CH4", 1, 4, ""),
        ("C2H6O-2", 1, 8, ""),
        ("C2H6O-3", 1, 8, ""),
    ]
    np.testing.assert_allclose(read[0].conformers[1], turned.positions - turned.positions.mean(0), atol=1e-7)


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="own.xyz: correct"):
        read_library(tmp_path / "own.xyz")
    (tmp_path / "own.xyz").write_text("no structure")
    with pytest.raises(InputError, match="own.xyz cannot be read as a structure file"):
        read_library(tmp_path / "own.xyz")
    write(tmp_path / "own.xyz", [Atoms("Ar"), Atoms("Ar", cell=[5, 5, 5], pbc=[1, 1, 0])], format="extxyz")
    with pytest.raises(InputError, match="frame 2 is periodic in some directions"):
        read_library(tmp_path / "own.xyz")
    write(tmp_path / "own.xyz", Atoms("Ar"))
    with pytest.raises(InputError, match=r"Ar has Ar: add \[18\] to `elements`"):
        jobs(configured(tmp_path, "[1]", 'calculator = "ase.calculators.emt.EMT"'))


def test_a_reason_is_kept_for_a_teacher_that_raises_anything():
    class Broken(EMT):
        def calculate(self, *given):
            raise KeyError("table")

    labels = Labels(Atoms("Cu", calculator=Broken()))
    labels.label(np.zeros((1, 3)))
    assert (labels.refused, labels.reason) == (1, "KeyError: 'table'")
