"""One label job and the file it writes.

A file (compressed npz) holds: numbers [N], positions [K, N, 3] (Å), energies [K] (eV), forces [K, N, 3] (eV/Å),
cell [3, 3] (Å, zero where not periodic), periodic, system, family (what tables group it under), split, temperature
(K, 0 where none applies), refused (how many frames were).
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from .selection import chosen
from .teacher import Teacher, TeacherFailed, ask

LARGEST_FORCE = 100.0  # eV/Å: beyond it the teacher's answer, if it is one, teaches nothing that dynamics can reach


@dataclass(frozen=True)
class Job:
    """One trajectory: what to make (an entry of the configuration), at which temperature (K), which one of many.

    `given` carries configurations [K, N, 3] that somebody else chose (the student); then the job only labels them.
    `members` are the molecules of the structures file that an entry which draws from it is about.
    """

    entry: object
    temperature: int
    index: int
    seed: int
    teacher: Teacher
    path: Path
    given: Atoms | None = None
    given_positions: np.ndarray | None = None
    members: tuple = ()
    system: str = ""  # unless the entry says
    family: str = ""  # likewise; the system's name unless given
    split: str = ""  # unless the entry says

    def rng(self) -> np.random.Generator:
        name = zlib.crc32(self.path.stem.encode())
        return np.random.default_rng([self.seed, name])


class Labels:
    """Collects labelled frames of one system."""

    def __init__(self, atoms: Atoms):
        self.atoms = atoms
        self.positions, self.energies, self.forces = [], [], []
        self.refused = 0
        self.reason = ""  # why the last one was

    def keep(self, positions, energy, forces):
        """Keeps one frame, unless its energy or forces are no numbers or a force is beyond LARGEST_FORCE."""
        if not np.isfinite(energy) or not np.abs(forces).max() <= LARGEST_FORCE:
            self.refuse(f"a force beyond {LARGEST_FORCE} eV/Å, or no number")
            return
        self.positions.append(positions.astype(np.float32))
        self.energies.append(energy)
        self.forces.append(forces.astype(np.float32))

    def refuse(self, reason):
        self.refused += 1
        self.reason = str(reason)

    def label(self, positions):
        """Labels `positions` with the atoms' calculator; a frame for which it fails is refused."""
        self.atoms.positions = positions
        try:
            self.keep(positions, *ask(self.atoms))
        except TeacherFailed as error:
            self.refuse(error)

    def thin(self, count: int):
        """Leaves the `count` frames most unlike each other."""
        best = chosen(np.array(self.positions, float), np.ones(len(self.positions)), count) if self.positions else []
        for kept in (self.positions, self.energies, self.forces):
            kept[:] = [kept[k] for k in best]

    def save(self, job: Job):
        """Writes the file under a temporary name and renames it: a file that exists is whole."""
        shape = (len(self.energies), len(self.atoms), 3)
        system = job.system or job.entry.system
        job.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = job.path.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                numbers=self.atoms.numbers.astype(np.int16),
                positions=np.array(self.positions, np.float32).reshape(shape),
                energies=np.array(self.energies, np.float64),
                forces=np.array(self.forces, np.float32).reshape(shape),
                cell=np.asarray(self.atoms.cell, np.float64),
                periodic=bool(self.atoms.pbc.any()),
                system=system,
                family=job.family or system,
                split=job.split or job.entry.split,
                refused=self.refused,
                temperature=job.temperature,
            )
        os.replace(temporary, job.path)
