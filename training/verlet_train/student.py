"""The trained network at work in PyTorch: labels many copies of a system at once, runs dynamics, chooses frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from ase import Atoms

from .config import Config, Sampled
from .dataset import offset_of
from .dynamics import ACCELERATION, BOLTZMANN, baoab_step, thermal_velocities
from .labels import Job
from .neighbors import pair_list
from .painn import PaiNN, energy_and_forces
from .structures import pack_box, pack_cluster

TIMESTEP = 0.5  # fs
FRICTION = 0.02  # 1/fs


class Student:
    """Energies [B] (eV) and forces [B, N, 3] (eV/Å) of B copies of one system, positions [B, N, 3] (Å)."""

    def __init__(self, model: PaiNN, numbers: np.ndarray, offsets: dict[int, float], cell: np.ndarray | None = None):
        self.model = model.eval().requires_grad_(False)
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self.numbers = torch.as_tensor(np.asarray(numbers), dtype=torch.long, device=self.device)
        self.offset = offset_of(np.asarray(numbers), offsets)
        self.cell = None if cell is None else torch.as_tensor(np.asarray(cell), dtype=torch.float64, device=self.device)

    def __call__(self, positions):
        count, atoms, _ = positions.shape
        positions = positions.to(torch.float64)
        frame, i, j, shift = pair_list(positions, self.model.cutoff, self.cell)
        base = frame * atoms
        energies, forces = energy_and_forces(
            self.model,
            self.numbers.repeat(count),
            positions.reshape(-1, 3).to(self.dtype),
            base + i,
            base + j,
            shift.to(self.dtype),
        )
        energies = energies.reshape(count, atoms).sum(1, dtype=torch.float64) + self.offset
        return energies, forces.reshape(count, atoms, 3).to(torch.float64)


def settle(student: Student, x, masses, normal, steps: int = 400):
    """Takes the strain out of a fresh packing: cold, strongly damped steps with forces clipped to 5 eV/Å."""

    def force(x):
        return student(x)[1].clamp(-5, 5)

    v, f = torch.zeros_like(x), force(x)
    for _ in range(steps):
        x, v, f = baoab_step(x, v, f, force, masses, TIMESTEP, 50.0, 0.1, normal)
    return x


def sample(config: Config, model: PaiNN, offsets: dict[int, float], round: int) -> Iterator[Job]:
    """Runs the student's Langevin dynamics for the `[[sampled]]` entries of this round; yields the labelling jobs.

    All runs of an entry advance together. One that leaves the physical (an atom faster than 1 Å/fs, or not a number)
    keeps the frames before that: those are where the student needs labels most.
    """
    for entry in (e for e in config.sampled if e.round == round):
        runs = []
        for density in entry.densities or [None]:
            for temperature in entry.temperatures:
                for index in range(entry.runs):
                    tag = "" if density is None else f"-{density:.2f}"
                    kind = "sampled" if round == 1 else f"sampled{round}"
                    path = config.data / f"{entry.split}-{entry.system}-{kind}{tag}-{temperature}K-{index:03d}.npz"
                    rng = np.random.default_rng([config.seed, *path.stem.encode()])
                    if density is not None:
                        start = pack_box(entry.molecules, density, rng)
                    else:
                        start = pack_cluster(entry.molecules, rng, shuffle=False)
                    runs.append((path, start, temperature, index))
        kept = _run(config, model, offsets, entry, [r[1] for r in runs], [r[2] for r in runs])
        print(f"{entry.split} {entry.system}: {len(runs)} runs, {sum(map(len, kept))} frames chosen", flush=True)
        for (path, start, temperature, index), frames in zip(runs, kept):
            yield Job(entry, temperature, index, config.seed, config.teacher, path, start, frames)


def _run(config, model, offsets, entry: Sampled, boxes: list[Atoms], temperatures: list[int]) -> list[np.ndarray]:
    """The finite frames [K, N, 3] of every run."""
    cells = np.array([b.cell for b in boxes]) if entry.densities else None
    student = Student(model, boxes[0].numbers, offsets, cells)
    device = student.device
    generator = torch.Generator(device).manual_seed(config.seed)
    masses = torch.as_tensor(boxes[0].get_masses()[:, None], dtype=torch.float64, device=device)
    heat = torch.as_tensor(temperatures, dtype=torch.float64, device=device)[:, None, None]
    x = torch.as_tensor(np.array([b.positions for b in boxes]), dtype=torch.float64, device=device)

    def normal():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device)

    def force(x):
        return student(x)[1]

    x = settle(student, x, masses, normal)
    v = thermal_velocities(masses, heat, normal)
    f = force(x)
    every, wait = round(entry.spacing_fs / TIMESTEP), round(entry.equilibration_fs / TIMESTEP)
    kept = []
    for step in range(1, wait + every * entry.frames + 1):
        x, v, f = baoab_step(x, v, f, force, masses, TIMESTEP, heat, FRICTION, normal)
        lost = (v.abs() > 1).any(2, keepdim=True).any(1, keepdim=True)
        x = torch.where(lost, torch.full_like(x, float("nan")), x)
        if step > wait and (step - wait) % every == 0:
            kept.append(x.cpu().numpy())
    return [run[np.isfinite(run).all((1, 2))] for run in np.array(kept).swapaxes(0, 1)]


def constant_energy(
    student: Student, starts: np.ndarray, masses: np.ndarray, temperature: float, steps: int, seed: int
):
    """Velocity Verlet from thermal velocities, B copies at once; returns what a judgement of stability needs.

    Total energy [steps + 1, B] (eV) and kinetic temperature [steps + 1, B] (K), NaN from where a copy blew up.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.as_tensor(starts, dtype=torch.float64, device=student.device)
    m = torch.as_tensor(masses[:, None], dtype=torch.float64, device=student.device)

    def normal():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)

    v = thermal_velocities(m, temperature, normal)
    potential, f = student(x)
    last = {"potential": potential}

    def force(x):
        last["potential"], forces = student(x)
        return forces

    total, heat = [], []
    for step in range(steps + 1):
        if step:
            x, v, f = baoab_step(x, v, f, force, m, TIMESTEP, 0.0, 0.0, normal)
        kinetic = (0.5 * m * v**2).sum((1, 2)) / ACCELERATION
        total.append((last["potential"] + kinetic).cpu().numpy())
        heat.append((2 * kinetic / (3 * len(masses) * BOLTZMANN)).cpu().numpy())
    return np.array(total), np.array(heat)
