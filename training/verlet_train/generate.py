"""Label generation: one job is one trajectory is one file, so a killed run goes on where it stopped.

A file (compressed npz) holds: numbers [N], positions [K, N, 3] (Å), energies [K] (eV), forces [K, N, 3] (eV/Å),
cell [3, 3] (Å, zero where not periodic), periodic, system, split, temperature (K, 0 where none applies).
"""

from __future__ import annotations

import multiprocessing
import os
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize import FIRE

from .config import Boxes, Config, Contacts, Distortions, Trajectories
from .dynamics import baoab_step, thermal_velocities
from .structures import cluster_radius, molecule, pack_box, pack_cluster

TIMESTEP = 0.5  # fs: an O–H stretch has a period of 9 fs
FRICTION = 0.02  # 1/fs
WALL_STIFFNESS = 0.2  # eV/Å², the confining sphere around a cluster; not part of the labels


@dataclass(frozen=True)
class Job:
    """One trajectory: what to make (an entry of the configuration), at which temperature (K), which one of many.

    `given` carries configurations [K, N, 3] that somebody else chose (the student); then the job only labels them.
    """

    entry: object
    temperature: int
    index: int
    seed: int
    method: str
    path: Path
    given: Atoms | None = None
    given_positions: np.ndarray | None = None

    def rng(self) -> np.random.Generator:
        name = zlib.crc32(self.path.stem.encode())
        return np.random.default_rng([self.seed, name])


def teacher(method: str):
    """The teacher as an ASE calculator."""
    from tblite.ase import TBLite

    return TBLite(method=method, verbosity=0)


def jobs(config: Config) -> list[Job]:
    """Every job of the configuration that needs no student, in an order that keeps a partial run balanced."""
    found = []
    for entry in [*config.trajectories, *config.distortions, *config.contacts, *config.boxes]:
        kind = type(entry).__name__.lower()
        for temperature in getattr(entry, "temperatures", [0]):
            for index in range(entry.runs):
                name = f"{entry.split}-{entry.system}-{kind}-{temperature}K-{index:03d}.npz"
                found.append(Job(entry, temperature, index, config.seed, config.method, config.data / name))
    order = np.random.default_rng(config.seed).permutation(len(found))
    return [found[k] for k in order]


class Labels:
    """Collects labelled frames of one system."""

    def __init__(self, atoms: Atoms):
        self.atoms = atoms
        self.positions, self.energies, self.forces = [], [], []

    def keep(self, positions, energy, forces):
        self.positions.append(positions.astype(np.float32))
        self.energies.append(energy)
        self.forces.append(forces.astype(np.float32))

    def label(self, positions):
        """Labels `positions` with the atoms' calculator; a frame whose self-consistent field fails is left out."""
        from ase.calculators.calculator import CalculationFailed

        self.atoms.positions = positions
        try:
            energy, forces = self.atoms.get_potential_energy(), self.atoms.get_forces()
        except (CalculationFailed, RuntimeError):
            self.atoms.calc.reset()
            return
        self.keep(positions, energy, forces)

    def save(self, job: Job):
        """Writes the file under a temporary name and renames it: a file that exists is whole."""
        shape = (len(self.energies), len(self.atoms), 3)
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
                system=job.entry.system,
                split=job.entry.split,
                temperature=job.temperature,
            )
        os.replace(temporary, job.path)


def run_job(job: Job) -> tuple[Job, int]:
    """Runs one job; returns it with the number of frames kept. Imports the teacher in the worker process."""
    rng = job.rng()
    calculator = teacher(job.method)
    if job.given is not None:
        atoms = job.given.copy()
        atoms.calc = calculator
        labels = Labels(atoms)
        for positions in job.given_positions:
            labels.label(positions)
    else:
        kinds = {Trajectories: _trajectory, Distortions: _distortions, Contacts: _contacts, Boxes: _boxes}
        labels = kinds[type(job.entry)](job, rng, calculator)
    labels.save(job)
    return job, len(labels.energies)


def _relaxed(atoms: Atoms, calculator, steps: int) -> Atoms:
    atoms.calc = calculator
    FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.05, steps=steps)
    return atoms


def _trajectory(job: Job, rng, calculator) -> Labels:
    """Langevin dynamics of a packed cluster in a soft sphere that keeps hot clusters together."""
    from ase.calculators.calculator import CalculationFailed

    entry = job.entry
    atoms = _relaxed(pack_cluster(entry.molecules, rng, entry.density), calculator, steps=25)
    labels = Labels(atoms)
    masses = atoms.get_masses()[:, None]
    wall = cluster_radius(entry.molecules, entry.density) + 1.5

    def force(x):
        atoms.positions = x
        distance = np.linalg.norm(x, axis=1, keepdims=True)
        pull = -WALL_STIFFNESS * np.maximum(distance - wall, 0) * x / np.maximum(distance, 1e-9)
        return atoms.get_forces() + pull

    def normal():
        return rng.normal(size=x.shape)

    x = atoms.positions - atoms.get_center_of_mass()
    v = thermal_velocities(masses, job.temperature, normal)
    every = round(entry.spacing_fs / TIMESTEP)
    try:
        f = force(x)
        for step in range(1, round(entry.equilibration_fs / TIMESTEP) + entry.frames * every + 1):
            x, v, f = baoab_step(x, v, f, force, masses, TIMESTEP, job.temperature, FRICTION, normal)
            kept = step - round(entry.equilibration_fs / TIMESTEP)
            if kept > 0 and kept % every == 0:
                labels.keep(x, atoms.get_potential_energy(), atoms.get_forces())
    except (CalculationFailed, RuntimeError):
        pass  # a failed self-consistent field ends this trajectory; what was kept stays
    return labels


def _distortions(job: Job, rng, calculator) -> Labels:
    entry = job.entry
    labels = Labels(_relaxed(pack_cluster(entry.molecules, rng), calculator, steps=60))
    rest = labels.atoms.positions.copy()
    numbers = labels.atoms.numbers
    distance = np.linalg.norm(rest[None] - rest[:, None], axis=-1)
    reach = np.where((numbers[:, None] > 1) & (numbers[None] > 1), 1.7, 1.2)
    bonds = np.argwhere((distance < reach) & (distance > 0) & (numbers[:, None] >= numbers[None]))
    for _ in range(entry.frames):
        x = rest + rng.normal(0, rng.uniform(*entry.rattle), rest.shape)
        heavy, light = bonds[rng.integers(len(bonds))]
        x[light] = x[heavy] + (x[light] - x[heavy]) * rng.uniform(*entry.stretch)
        labels.label(x)
    return labels


def _contacts(job: Job, rng, calculator) -> Labels:
    entry = job.entry
    first, second = (molecule(name, rng) for name in entry.pair)
    labels = Labels(first + second)
    labels.atoms.calc = calculator
    while len(labels.energies) < entry.frames:
        first, second = (molecule(name, rng) for name in entry.pair)
        direction = rng.normal(size=3)
        second.positions += direction / np.linalg.norm(direction) * rng.uniform(*entry.distance)
        closest = np.linalg.norm(first.positions[None] - second.positions[:, None], axis=-1).min()
        if closest > 1.1:  # a nuclear clash teaches nothing that dynamics below 1000 K can reach
            x = np.concatenate([first.positions, second.positions])
            labels.label(x + rng.normal(0, entry.rattle, x.shape))
    return labels


def _boxes(job: Job, rng, calculator) -> Labels:
    entry = job.entry
    density = rng.uniform(*entry.densities)
    atoms = pack_box(entry.molecules, density, rng)
    atoms.calc = calculator
    labels = Labels(atoms)
    for _ in range(entry.frames):  # the same cell, another packing
        packed = pack_box(entry.molecules, density, rng)
        labels.label(packed.positions + rng.normal(0, entry.rattle, packed.positions.shape))
    return labels


def run_all(wanted: Iterable[Job], processes: int, time_limit: float | None = None) -> None:
    """Runs the jobs whose files are missing on `processes` cores, with a line of progress after every twenty.

    `wanted` may be lazy: labelling begins with its first job, while it still makes the others.
    """
    # One thread a process: two thread pools on the same cores made a label 15 to 25 times slower.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    missing = (job for job in wanted if not job.path.exists())
    count, frames, began = 0, 0, time.time()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for count, (job, kept) in enumerate(pool.imap_unordered(run_job, missing), 1):
            frames += kept
            elapsed = time.time() - began
            if count % 20 == 0:
                print(f"{count} jobs, {frames} frames, {elapsed:.0f} s", flush=True)
            if time_limit is not None and elapsed > time_limit:
                print(f"time limit reached after {count} jobs", flush=True)
                pool.terminate()
                return
    print(f"{count} jobs, {frames} frames, {time.time() - began:.0f} s; the others were done before", flush=True)
