"""The structures file: molecules with their conformers and bonds, read where no RDKit is.

A compressed npz of flat arrays: smiles, family, split [M]; atoms, bonds, conformers [M] (how many of each); numbers
[ΣA]; ends [ΣB, 2] (atoms of each bond, counted within the molecule); positions [Σ A·C, 3] (Å, float32).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write


@dataclass(frozen=True)
class Molecule:
    smiles: str
    family: str
    split: str  # "train", "test", "reserve", "further"; or "": its trajectories are divided, not the molecules
    numbers: np.ndarray  # [A] atomic numbers
    bonds: np.ndarray  # [B, 2]
    conformers: np.ndarray  # [C, A, 3] Å
    cell: np.ndarray | None = None  # [3, 3] Å, of a periodic system of one's own; the structures file has none


def write_library(path: Path, molecules: list[Molecule]) -> None:
    """Writes the structures file aside and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            smiles=np.array([m.smiles for m in molecules]),
            family=np.array([m.family for m in molecules]),
            split=np.array([m.split for m in molecules]),
            atoms=np.array([len(m.numbers) for m in molecules], np.int16),
            bonds=np.array([len(m.bonds) for m in molecules], np.int16),
            conformers=np.array([len(m.conformers) for m in molecules], np.int16),
            numbers=np.concatenate([m.numbers for m in molecules]).astype(np.uint8),
            ends=np.concatenate([m.bonds.reshape(-1, 2) for m in molecules]).astype(np.uint8),
            positions=np.concatenate([m.conformers.reshape(-1, 3) for m in molecules]).astype(np.float32),
        )
    os.replace(temporary, path)


def write_structures(path: Path, molecules: list[Molecule]) -> Path:
    """Every conformer as a frame of an extended XYZ file, to look at and to begin runs from."""
    frames = [Atoms(m.numbers, x, info={"name": m.smiles}) for m in molecules for x in m.conformers]
    write(path, frames, format="extxyz")
    return path


def read_library(path: Path) -> list[Molecule]:
    """The molecules of a structures file, or of any file that ASE reads.

    Raises FileNotFoundError that says which command makes the file.
    """
    if path.suffix != ".npz" and path.exists():
        from .own import read_own

        return read_own(path)
    if not path.exists():
        how = "run `verlet-train molecules` first" if path.suffix == ".npz" else "correct [molecules] file"
        raise FileNotFoundError(f"there is no structures file {path}: {how}")
    with np.load(path) as file:
        data = {key: file[key] for key in file.files}
    atoms, bonds, conformers = (data[key].astype(int) for key in ("atoms", "bonds", "conformers"))
    numbers = np.split(data["numbers"].astype(int), np.cumsum(atoms)[:-1])
    ends = np.split(data["ends"].astype(int), np.cumsum(bonds)[:-1])
    positions = np.split(data["positions"].astype(float), np.cumsum(atoms * conformers)[:-1])
    return [
        Molecule(
            str(data["smiles"][k]),
            str(data["family"][k]),
            str(data["split"][k]),
            numbers[k],
            ends[k],
            positions[k].reshape(conformers[k], atoms[k], 3),
        )
        for k in range(len(atoms))
    ]
