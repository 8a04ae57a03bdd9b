"""The built engine, asked by way of its command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read


def evaluate(engine: Path, model: Path, frames: list[Atoms], folder: Path) -> list[Atoms]:
    """The engine's float64 answers with directly evaluated filters."""
    structures, out = folder / "in.xyz", folder / "out.xyz"
    write_exactly(structures, frames)
    out.unlink(missing_ok=True)
    command = [engine, "evaluate", "--model", model, structures, "-o", out, "--precision", "f64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read(out, index=":", format="extxyz")


def write_exactly(path: Path, frames: list[Atoms]) -> None:
    """Extended XYZ with every digit of the positions, of which ASE writes eight decimals."""
    with path.open("w") as file:
        for atoms in frames:
            file.write(f"{len(atoms)}\n")
            if atoms.pbc.any():
                file.write(f'Lattice="{" ".join(map(repr, atoms.cell.array.ravel().tolist()))}" ')
            file.write(f'Properties=species:S:1:pos:R:3 pbc="{" ".join("FT"[int(p)] for p in atoms.pbc)}"\n')
            for symbol, x in zip(atoms.symbols, atoms.positions.tolist(), strict=True):
                file.write(f"{symbol} {x[0]!r} {x[1]!r} {x[2]!r}\n")


def atoms_of(case: dict) -> Atoms:
    return Atoms(case["atomic_numbers"], case["positions_angstrom"], cell=case["cell_angstrom"], pbc=case["pbc"])


def assert_answers(frame: Atoms, case: dict) -> None:
    np.testing.assert_allclose(frame.get_potential_energy(), case["total_energy_ev"], rtol=0, atol=1e-9 * len(frame))
    np.testing.assert_allclose(frame.get_forces(), case["forces_ev_per_angstrom"], rtol=0, atol=1e-8)
    if case["cell_angstrom"] is not None and "strain_derivative_ev" in case:
        stress = np.array(case["strain_derivative_ev"]) / frame.get_volume()
        np.testing.assert_allclose(frame.get_stress(voigt=False), (stress + stress.T) / 2, rtol=0, atol=1e-8)
