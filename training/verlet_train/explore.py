"""Exploration: the engine's own dynamics under a student, and the frames of it that say most to the next one.

Of every molecule one run: Langevin dynamics by the engine, in a process of its own, on one core: for a molecule of twenty
atoms sixteen cores are together faster than a GPU that sixteen processes share. Two students that differ in nothing
but their start and the order of their training then answer for its frames, and where their forces differ most the
teacher is asked. One file a run holds its frames, so that what was killed goes on where it stopped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read, write

from .config import Config, Explore
from .dynamics import BOLTZMANN
from .labels import Job
from .model_file import read_model_file
from .molecules.library import Molecule
from .problem import InputError
from .sampling import molecules_of, on_grid
from .selection import chosen
from .student import Student

JUMP = 3.0  # k_B T per atom: two frames whose potential energies differ by more are no neighbours in thermal motion
TORN = 2  # frames up to such a jump, or to where the engine gave up, that are always labelled
AT_ONCE = 4000  # atoms for whose frames a student answers at once
INPUT = """\
[system]
structure = "start.xyz"
[model]
file = {model}
[dynamics]
ensemble = "langevin"
temperature = {temperature}
friction = "10 1/ps"
timestep = "0.5 fs"
steps = {steps}
seed = {seed}
[backend]
device = "cpu"
threads = 1
[output]
directory = "run"
[output.trajectory]
interval = {steps}
velocities = false
[[output.extra]]
file = "frames.xyz"
interval = {every}
"""


@dataclass(frozen=True)
class Run:
    """One molecule's dynamics."""

    molecule: Molecule
    index: int  # of the molecule in the structures file
    temperature: int  # K
    start: np.ndarray  # [N, 3] Å
    seed: int
    name: str

    def atoms(self, positions) -> Atoms:
        m = self.molecule
        return Atoms(m.numbers, positions, cell=m.cell, pbc=m.cell is not None)


def runs_of(config: Config, round_: int) -> list[Run]:
    """The runs of a round: about molecules in reserve, others in each round; about all, where none is in any split."""
    entry = config.explore
    if entry is None:
        raise InputError("the configuration has no [explore]: say there how much to explore")
    library = molecules_of(config)
    unseen = [k for k, m in enumerate(library) if m.split in ("reserve", "")]
    if not unseen:
        raise InputError(
            f"{config.structures()} has no molecule in reserve: set [molecules] reserve_fraction and make it again"
        )
    order = np.random.default_rng([config.seed, 4]).permutation(unseen)
    first = (round_ - 1) * entry.molecules
    found = []
    for count in range(first, first + entry.molecules):
        index, again = int(order[count % len(order)]), count // len(order)
        m = library[index]
        name = f"train-explored{round_}-{index:05d}-{again}"
        rng = np.random.default_rng([config.seed, *name.encode()])
        temperature = entry.temperatures[count % len(entry.temperatures)]
        start = m.conformers[rng.integers(len(m.conformers))]
        found.append(Run(m, index, temperature, start, int(rng.integers(2**31)), name))
    return found


def run_engine(run: Run, entry: Explore, engine: Path, model: Path, folder: Path) -> Path:
    """The file with the run's frames: positions [K, N, 3] (Å), energies [K] (eV), and how it ended ("": as planned).

    Raises InputError with the engine's own sentence where it did not begin.
    """
    path = folder / f"{run.name}.npz"
    if path.exists():
        return path
    place = folder / run.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    write(place / "start.xyz", run.atoms(run.start), format="extxyz")
    settings = {"model": repr(str(model.resolve())), "temperature": run.temperature, "seed": run.seed}
    (place / "input.toml").write_text(INPUT.format(**settings, steps=entry.steps, every=entry.every))
    try:
        done = subprocess.run(
            [engine.resolve(), "run", "input.toml"], cwd=place, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise InputError(f"--engine {engine} cannot be started: {error.strerror}") from None
    frames = place / "run" / "frames.xyz"
    told = (done.stderr.strip() or "it says nothing").splitlines()[-1]
    # 3: the energy was not conserved, which says nothing about the frames.
    finished = done.returncode in (0, 3) and "finished" in done.stdout + done.stderr
    if not finished and (done.returncode != 1 or not frames.exists()):
        raise InputError(f"{place / 'input.toml'}: the engine did not run it: {told}")
    whole = [a for a in read(frames, index=":", format="extxyz") if np.isfinite(a.positions).all()]
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            positions=np.array([a.positions for a in whole]).reshape(-1, len(run.start), 3),
            energies=np.array([a.get_potential_energy() for a in whole]),
            ended="" if finished else told,
        )
    os.replace(temporary, path)
    shutil.rmtree(place)
    return path


def physical(energies: np.ndarray, atoms: int, temperature: float) -> tuple[int, bool]:
    """How many frames there are up to the first jump of the potential energy, that frame included; was there one?"""
    jumps = np.abs(np.diff(energies)) > JUMP * BOLTZMANN * temperature * atoms
    return (int(jumps.argmax()) + 2, True) if jumps.any() else (len(energies), False)


def forces_of(student: Student, positions: np.ndarray) -> np.ndarray:
    """[K, N, 3] (eV/Å)"""
    parts = np.array_split(positions, max(1, positions.shape[0] * positions.shape[1] // AT_ONCE))
    return np.concatenate([student(torch.as_tensor(x, device=student.device))[1].cpu().numpy() for x in parts])


class Explorer:
    """Runs the engine for the molecules of a round, and chooses frames by the disagreement of two students."""

    def __init__(self, config: Config, engine: Path, students: list[Path], round_: int, device: str):
        self.config, self.engine, self.students, self.round = config, engine, students, round_
        self.folder = config.data.parent / f"{config.data.name}-explored{round_}"
        self.networks = []
        for path in students:
            model, description = read_model_file(path)
            if missing := sorted(set(config.elements) - set(description["elements"])):
                raise InputError(f"{path} does not know the elements {missing} of the configuration")
            self.networks.append(model.to(device))
        self.differences, self.lost, self.pool = [], 0, None

    def jobs(self, processes: int) -> Iterator[Job]:
        """The labelling jobs, as their runs end. Those with a label file already are left out."""
        entry = self.config.explore
        todo = [r for r in runs_of(self.config, self.round) if not (self.config.data / f"{r.name}.npz").exists()]
        self.pool = ThreadPoolExecutor(processes)
        pending = [self.pool.submit(run_engine, r, entry, self.engine, self.students[0], self.folder) for r in todo]
        for run, future in zip(todo, pending):
            yield self._job(run, future.result())

    def close(self):
        """Waits for the engine's runs under way, and begins no other."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def _job(self, run: Run, path: Path) -> Job:
        with np.load(path) as file:
            positions, energies, ended = file["positions"], file["energies"], str(file["ended"])
        count, jumped = physical(energies, len(run.start), run.temperature)
        x = on_grid(positions[:count])
        numbers, cell = run.molecule.numbers, run.molecule.cell
        nothing = dict.fromkeys(numbers.tolist(), 0.0)  # energy offsets: only forces count here
        one, two = (forces_of(Student(n, numbers, nothing, cell), x) for n in self.networks)
        difference = np.linalg.norm(one - two, axis=2).max(1)
        self.differences.append(difference)
        lost = bool(ended) or jumped
        self.lost += lost
        always = list(range(max(0, count - TORN), count)) if lost else []
        best = chosen(x, np.nan_to_num(difference, nan=0.0), self.config.explore.frames, always)
        m, config = run.molecule, self.config
        return Job(
            config.explore,
            run.temperature,
            0,
            config.seed,
            config.teacher,
            config.data / f"{run.name}.npz",
            run.atoms(run.start),
            x[best],
            system=m.smiles,
            family=m.family,
            split="train",
        )

    def summary(self) -> str:
        if not self.differences:
            return "every run of this round was labelled before"
        d = 1e3 * np.concatenate(self.differences)
        low, high = np.nanpercentile(d, [50, 95])
        return (
            f"{len(self.differences)} runs, {self.lost} of them torn apart; the students' forces on the worst atom of "
            f"a frame differ by {low:.0f} meV/Å (median of {len(d)} frames; 95 %: {high:.0f})"
        )
