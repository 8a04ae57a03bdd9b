"""Structures in three dimensions: distance geometry (ETKDGv3) and a classical force field, from a fixed seed."""

from __future__ import annotations

import multiprocessing
import zlib

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem

from .enumeration import Candidate
from .library import Molecule

ALIKE = 0.4  # Å: conformers whose heavy atoms differ by less (root mean square) are one


def embed(candidate: Candidate, seed: int, most: int) -> Molecule | None:
    """The candidate with up to `most` conformers; None where distance geometry finds none.

    Minimized with MMFF94, or with UFF where MMFF94 has no parameters. The geometry is the start of the teacher's own
    dynamics, so what the force field gets wrong does not stay.
    """
    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.AddHs(Chem.MolFromSmiles(candidate.smiles))
    settings = AllChem.ETKDGv3()
    settings.randomSeed = zlib.crc32(f"{seed}:{candidate.smiles}".encode()) & 0x7FFFFFFF
    settings.pruneRmsThresh = ALIKE
    settings.maxIterations = 50
    if not list(AllChem.EmbedMultipleConfs(molecule, most, settings)):
        return None
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        AllChem.MMFFOptimizeMoleculeConfs(molecule, maxIters=500)
    else:
        AllChem.UFFOptimizeMoleculeConfs(molecule, maxIters=500)
    positions = np.array([c.GetPositions() for c in molecule.GetConformers()])
    return Molecule(
        candidate.smiles,
        candidate.family,
        candidate.split,
        np.array([a.GetAtomicNum() for a in molecule.GetAtoms()]),
        np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()], int).reshape(-1, 2),
        positions - positions.mean(1, keepdims=True),
    )


def _embed(arguments: tuple[Candidate, int, int]) -> Molecule | None:
    return embed(*arguments)


def make_library(candidates: list[Candidate], seed: int, conformers: int, processes: int) -> list[Molecule]:
    """Every candidate that can be embedded, in their order; of the further ones, which are many, one conformer."""
    print(f"{len(candidates)} molecules to embed", flush=True)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        made = []
        wanted = [(c, seed, 1 if c.split == "further" else conformers) for c in candidates]
        for molecule in pool.imap(_embed, wanted, chunksize=8):
            made.append(molecule)
            if len(made) % 200 == 0:
                print(f"{len(made)} embedded", flush=True)
    missing = [c.smiles for c, m in zip(candidates, made) if m is None]
    if missing:
        print(f"{len(missing)} could not be embedded and are left out: {' '.join(missing)}", flush=True)
    return [m for m in made if m is not None]
