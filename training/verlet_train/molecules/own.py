"""Molecules, and crystals, of one's own: any structure file that ASE reads, each distinct one with all its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.io import read

from ..problem import InputError
from .library import Molecule

BOND = 1.2  # atoms nearer than this multiple of their covalent radii's sum are bonded


def bonds_of(atoms: Atoms) -> np.ndarray:
    """Pairs of bonded atoms [B, 2], by covalent radii; none in a periodic system, where images could be meant."""
    if atoms.pbc.any():
        return np.zeros((0, 2), int)
    radii = covalent_radii[atoms.numbers]
    near = atoms.get_all_distances() < BOND * (radii[:, None] + radii[None])
    return np.argwhere(np.triu(near, 1))


def read_own(path: Path) -> list[Molecule]:
    """Frames of the same elements in the same order, with the same bonds and the same cell, are one molecule.

    It is called by its formula, and belongs to no split. Raises InputError for files that cannot be read or used.
    """
    try:
        frames = read(path, index=":")
    except Exception as error:  # noqa: BLE001 readers of many formats fail in many ways
        raise InputError(f"{path} cannot be read as a structure file: {type(error).__name__}: {error}") from None
    groups: dict[tuple, list[Atoms]] = {}
    for number, atoms in enumerate(frames, 1):
        if len(atoms) == 0:
            raise InputError(f"{path}: frame {number} has no atoms")
        if atoms.pbc.any() and not atoms.pbc.all():
            raise InputError(f"{path}: frame {number} is periodic in some directions: make it so in all, or in none")
        cell = np.array(atoms.cell) * atoms.pbc.all()
        key = (tuple(atoms.numbers), tuple(map(tuple, bonds_of(atoms))), cell.tobytes())
        groups.setdefault(key, []).append(atoms)
    found, names = [], []
    for members in groups.values():
        first = members[0]
        formula = first.get_chemical_formula()
        names.append(formula)
        name = formula if names.count(formula) == 1 else f"{formula}-{names.count(formula)}"
        cell = np.array(first.cell) if first.pbc.all() else None
        positions = np.array([a.positions for a in members])
        if cell is None:
            positions -= positions.mean(1, keepdims=True)
        found.append(Molecule(name, name, "", first.numbers.astype(int), bonds_of(first), positions, cell))
    return found
