"""check_evaluate.py FILE: extended XYZ of `verlet evaluate`, read by ASE."""

import sys

import numpy as np
from ase.io import read

frames = read(sys.argv[1], index=":")
for atoms in frames:
    energies = atoms.get_potential_energies()
    assert abs(energies.sum() - atoms.get_potential_energy()) < 1e-9
    assert atoms.get_forces().shape == (len(atoms), 3)
    # The network does not see where the origin is.
    assert np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-10
    if atoms.pbc.any():
        assert np.isfinite(atoms.get_stress()).all() and len(atoms.get_stress()) == 6
print(f"ASE: {len(frames)} frames")
