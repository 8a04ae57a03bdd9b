"""Extended XYZ against ASE.

check_extxyz.py write FILE.xyz EXPECTED.json   ASE writes frames of every kind, and what must be read from them
check_extxyz.py read FILE.xyz EXPECTED.json    ASE must read what EXPECTED.json says

Numbers travel as text: repr() is exact, JSON parsers need not be.
"""

import json
import sys

import ase
import ase.io
import ase.units
import numpy as np
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms


def texts(values):
    return [repr(float(x)) for x in np.asarray(values, dtype=float).ravel()]


def frames():
    water = molecule("H2O")
    water.info = {
        "name": "a molecule",
        "quoted": 'said "hello" and \'bye\'',
        "bracket": "[not an array",
        "dictionary": {"basis": "def2 TZVP", "shifts": [1.5, 2]},
        "matrix": np.arange(4.0).reshape(2, 2),
        "converged": True,
        "charge": -1,
        "level": 0.25,
        "field": np.array([0.0, -0.5, 1e-7]),
        "counts": np.array([1, 2, 3]),
        "flags": np.array([True, False]),
    }
    yield water

    rng = np.random.default_rng(1)
    # Any orientation, not only a along x.
    rotated = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))
    rotated.set_cell(rotated.cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0], scale_atoms=True)
    rotated.pbc = [True, False, True]
    rotated.set_momenta(rng.normal(size=(4, 3)))
    yield rotated

    left_handed = bulk("Si", cubic=True)
    left_handed.set_cell(left_handed.cell[[1, 0, 2]], scale_atoms=False)
    assert np.linalg.det(left_handed.cell) < 0
    left_handed.set_masses(np.linspace(28, 30, 8))
    left_handed.set_momenta(rng.normal(size=(8, 3)))
    yield left_handed

    slab = fcc111("Al", (2, 2, 2))
    assert not slab.cell[2].any()
    slab.info = {}
    slab.set_constraint(FixAtoms(mask=slab.get_tags() == 2))
    slab.set_array("site", np.array(["top", "fcc"] * 4))
    slab.set_array("pair", np.arange(16).reshape(8, 2))
    slab.set_array("tensor", rng.normal(size=(8, 9)))
    slab.set_array("active", np.arange(8) % 2 == 0)
    yield slab

    copper = bulk("Cu").repeat((2, 2, 2))
    copper.set_cell(copper.cell @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), scale_atoms=True)
    copper.rattle(0.05, seed=2)
    copper.calc = EMT()
    copper.get_stress()
    copper.get_potential_energies()
    yield copper


def strain_derivative(atoms):
    """dE/dstrain ÷ volume by central differences, 3 × 3, eV/Å³."""
    step = 1e-5
    result = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += sign * step / 2
                strain[j, i] += sign * step / 2
                moved = atoms.copy()
                moved.set_cell(atoms.cell @ strain, scale_atoms=True)
                moved.calc = EMT()
                energies.append(moved.get_potential_energy())
            result[i, j] = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
    return result


def write(path, expected_path):
    images = list(frames())
    ase.io.write(path, images, format="extxyz")
    # ASE writes eight decimals: what must be read is what ASE itself reads.
    expected = []
    for atoms in ase.io.read(path, index=":", format="extxyz"):
        one = {
            "numbers": atoms.numbers.tolist(),
            "positions": texts(atoms.positions),
            "cell": texts(atoms.cell),
            "pbc": atoms.pbc.tolist(),
        }
        if atoms.has("momenta"):
            one["velocities"] = texts(atoms.get_velocities() * ase.units.fs)
        if atoms.has("masses"):
            one["masses"] = texts(atoms.get_masses())
        if atoms.calc:
            one["energy"] = texts(atoms.get_potential_energy())[0]
            one["forces"] = texts(atoms.get_forces())
            one["energies"] = texts(atoms.get_potential_energies())
            one["stress"] = texts(strain_derivative(images[-1]))
        expected.append(one)
    with open(expected_path, "w") as file:
        json.dump(expected, file)


def read(path, expected_path):
    with open(expected_path) as file:
        expected = json.load(file)
    images = ase.io.read(path, index=":", format="extxyz")
    assert len(images) == len(expected), (len(images), len(expected))
    for atoms, one in zip(images, expected, strict=True):
        numbers = {key: np.array(value, dtype=float) for key, value in one.items() if key != "text"}
        assert (atoms.numbers == numbers["numbers"]).all()
        assert (atoms.positions.ravel() == numbers["positions"]).all()
        assert (atoms.pbc == numbers["pbc"]).all()
        assert (atoms.cell.array.ravel() == numbers["cell"]).all(), atoms.cell
        assert atoms.get_potential_energy() == numbers["energy"]
        assert (atoms.get_forces(apply_constraint=False).ravel() == numbers["forces"]).all()
        assert (atoms.get_potential_energies() == numbers["energies"]).all()
        assert (atoms.arrays["pair"].ravel() == numbers["pair"]).all()
        assert (atoms.arrays["active"] == numbers["active"].astype(bool)).all()
        assert atoms.info["text"] == one["text"], atoms.info["text"]
        assert atoms.info["steps"] == numbers["steps"]
        assert atoms.info["converged"] is True
        if "stress" in numbers:
            assert (atoms.get_stress(voigt=False).ravel() == numbers["stress"]).all()
        if "velocities" in numbers:
            velocities = atoms.get_velocities().ravel() * ase.units.fs
            # ASE's constants are those of 2014.
            assert np.allclose(velocities, numbers["velocities"], rtol=1e-7, atol=0)
            assert (atoms.get_masses() == numbers["masses"]).all()
    print(f"ASE {ase.__version__} read {len(images)} frames")


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
