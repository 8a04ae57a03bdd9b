"""The built engine, asked by way of its command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write


def evaluate(engine: Path, model: Path, frames: list[Atoms], folder: Path) -> list[Atoms]:
    """The engine's float64 answers with directly evaluated filters."""
    structures, out = folder / "in.xyz", folder / "out.xyz"
    write(structures, frames, format="extxyz")
    out.unlink(missing_ok=True)
    command = [engine, "evaluate", "--model", model, structures, "-o", out, "--precision", "f64"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return read(out, index=":", format="extxyz")


def fits_text(case: dict) -> bool:
    """Do the eight decimals of a text file hold the positions?"""
    x = np.array(case["positions_angstrom"])
    return np.allclose(x, x.round(8), rtol=0, atol=1e-14)


def atoms_of(case: dict) -> Atoms:
    return Atoms(case["atomic_numbers"], case["positions_angstrom"], cell=case["cell_angstrom"], pbc=case["pbc"])


def assert_answers(frame: Atoms, case: dict) -> None:
    np.testing.assert_allclose(frame.get_potential_energy(), case["total_energy_ev"], rtol=0, atol=1e-9 * len(frame))
    np.testing.assert_allclose(frame.get_forces(), case["forces_ev_per_angstrom"], rtol=0, atol=1e-8)
    # A plane or a line of images has no volume to divide by.
    if case["strain_derivative_ev"] is not None and all(case["pbc"]):
        stress = np.array(case["strain_derivative_ev"]) / frame.get_volume()
        np.testing.assert_allclose(frame.get_stress(voigt=False), (stress + stress.T) / 2, rtol=0, atol=1e-8)
