"""The teacher's own answers at frames of the student's runs: GFN2-xTB by tblite. Needs the environment of training/."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def compare(path: Path, waters: int) -> dict[str, dict]:
    """By system: mean absolute errors of forces (meV/Å) and of energies about their mean offset (meV/atom)."""
    with np.load(path) as file:
        data = {key: file[key] for key in file.files}
    answers = {}
    for name in sorted({key.rsplit("/", 1)[0] for key in data}):
        own = {key.rsplit("/", 1)[1]: value for key, value in data.items() if key.rsplit("/", 1)[0] == name}
        rows = np.arange(len(own["positions"]))
        if "cell" in own:
            rows = rows[np.linspace(0, len(rows) - 1, min(waters, len(rows))).astype(int)]
        if len(rows):
            answers[name] = errors(own, rows)
            print(f"{name}: {len(rows)} frames, forces {answers[name]['forces']:.1f} meV/Å", flush=True)
    return answers


def errors(own: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, object]:
    from ase import Atoms
    from tblite.ase import TBLite

    atoms = Atoms(own["numbers"], cell=own.get("cell"), pbc="cell" in own)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    apart, energies = [], []
    for row in rows:
        atoms.positions = own["positions"][row]
        apart.append(own["forces"][row] - atoms.get_forces())
        energies.append(atoms.get_potential_energy())
    apart = np.array(apart)
    found: dict[str, object] = {
        "frames": len(rows),
        "atoms": len(atoms),
        "forces": 1e3 * float(np.abs(apart).mean()),
        "largest": 1e3 * float(np.abs(apart).max()),
        "by element": {str(z): 1e3 * float(np.abs(apart[:, own["numbers"] == z]).mean()) for z in np.unique(own["numbers"])},
    }
    if "energies" in own:
        offsets = 1e3 * (own["energies"][rows] - np.array(energies)) / len(atoms)
        found["offset"] = float(offsets.mean())
        found["energies"] = float(np.abs(offsets - offsets.mean()).mean())
    return found
