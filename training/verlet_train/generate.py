"""Label generation: one job is one trajectory is one file, so a killed run goes on where it stopped.

`labels.py` says what a file holds. What is drawn from a structures file is in `sampling.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable

import numpy as np
from ase import Atoms
from ase.optimize import FIRE

from .config import Boxes, Config, Contacts, Distortions, Trajectories
from .dynamics import baoab_step, thermal_velocities
from .labels import Job, Labels
from .problem import InputError
from .sampling import SAMPLERS, library_jobs
from .structures import cluster_radius, molecule, pack_box, pack_cluster
from .teacher import TeacherFailed, ask

TIMESTEP = 0.5  # fs: an O–H stretch has a period of 9 fs
FRICTION = 0.02  # 1/fs
REPORT_EVERY = 10.0  # s
WALL_STIFFNESS = 0.2  # eV/Å², the confining sphere around a cluster; not part of the labels


def jobs(config: Config) -> list[Job]:
    """Every job of the configuration that needs no student, in an order that keeps a partial run balanced."""
    found = []
    for entry in [*config.trajectories, *config.distortions, *config.contacts, *config.boxes]:
        kind = type(entry).__name__.lower()
        for temperature in getattr(entry, "temperatures", [0]):
            for index in range(entry.runs):
                name = f"{entry.split}-{entry.system}-{kind}-{temperature}K-{index:03d}.npz"
                found.append(Job(entry, temperature, index, config.seed, config.teacher, config.data / name))
    found += library_jobs(config)
    order = np.random.default_rng(config.seed).permutation(len(found))
    return [found[k] for k in order]


def run_job(job: Job) -> tuple[int, int, str]:
    """Runs one job; returns how many frames were kept and refused, and why the last one was.

    Imports the teacher in the worker process. A job without a frame leaves no file, so that it is tried again.
    """
    rng = job.rng()
    calculator = job.teacher.make()
    try:
        if job.given is not None:
            atoms = job.given.copy()
            atoms.calc = calculator
            labels = Labels(atoms)
            for positions in job.given_positions:
                labels.label(positions)
        else:
            kinds = {
                Trajectories: _trajectory,
                Distortions: _distortions,
                Contacts: _contacts,
                Boxes: _boxes,
                **SAMPLERS,
            }
            labels = kinds[type(job.entry)](job, rng, calculator)
    except TeacherFailed as error:
        return 0, 1, str(error)
    if labels.energies:
        labels.save(job)
    return len(labels.energies), labels.refused, labels.reason


def _relaxed(atoms: Atoms, calculator, steps: int) -> Atoms:
    """Relaxed, as far as the teacher has answers."""
    atoms.calc = calculator
    try:
        ask(atoms)
        FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.05, steps=steps)
    except Exception as error:  # noqa: BLE001 the optimizer lets through whatever the calculator raises
        raise TeacherFailed(str(error)) from None
    return atoms


def _trajectory(job: Job, rng, calculator) -> Labels:
    """Langevin dynamics of a packed cluster in a soft sphere that keeps hot clusters together."""
    entry = job.entry
    atoms = _relaxed(pack_cluster(entry.molecules, rng, entry.density), calculator, steps=25)
    labels = Labels(atoms)
    masses = atoms.get_masses()[:, None]
    wall = cluster_radius(entry.molecules, entry.density) + 1.5

    def force(x):
        atoms.positions = x
        distance = np.linalg.norm(x, axis=1, keepdims=True)
        pull = -WALL_STIFFNESS * np.maximum(distance - wall, 0) * x / np.maximum(distance, 1e-9)
        return ask(atoms)[1] + pull

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
                labels.keep(x, *ask(atoms))
    except TeacherFailed as error:
        labels.refuse(error)  # ends this trajectory; what was kept stays
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
    """Runs the jobs whose files are missing on `processes` cores, with a line of progress every REPORT_EVERY seconds.

    `wanted` may be lazy: labelling begins with its first job, while it still makes the others.
    """
    # One thread a process: two thread pools on the same cores made a label 15 to 25 times slower.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    missing = (job for job in wanted if not job.path.exists())
    count, frames, refused, reason, reported, began = 0, 0, 0, "", 0.0, time.time()

    def line() -> str:
        why = f" (the last one: {reason})" if refused else ""
        return f"{count} jobs, {frames} frames, {refused} refused{why}, {time.time() - began:.0f} s"

    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for count, (kept, left_out, why) in enumerate(pool.imap_unordered(run_job, missing), 1):
            frames += kept
            refused += left_out
            reason = why or reason
            elapsed = time.time() - began
            if elapsed > reported + REPORT_EVERY:
                print(line(), flush=True)
                reported = elapsed
            if time_limit is not None and elapsed > time_limit:
                print(f"time limit reached: {line()}", flush=True)
                pool.terminate()
                return
    print(f"{line()}; the others were done before", flush=True)
    if refused and not frames:
        raise InputError(f"the teacher labelled no frame, the last one because of {reason}")
