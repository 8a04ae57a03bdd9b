"""The student left to itself: constant-energy runs from held-out frames, and settled structures to start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import write

from .dataset import Trajectory
from .dynamics import baoab_step, thermal_velocities
from .painn import PaiNN
from .structures import pack_box, pack_cluster
from .student import FRICTION, TIMESTEP, Student, constant_energy, settle

COPIES = 8  # starts of one system, run at once


def table(model: PaiNN, offsets, trajectories: list[Trajectory], steps: int, seed: int, systems=None) -> list[dict]:
    """One row for each held-out system and start temperature; `lost` counts runs that were torn apart.

    A run is lost when its energy is not a number or strays by more than 10 meV/atom. Drift is the slope of a
    straight line through the total energy, fluctuation its standard deviation about that line.
    """
    rows = []
    for system in systems or sorted({t.system for t in trajectories if t.split == "test"}):
        members = [t for t in trajectories if t.split == "test" and t.system == system and t.temperature == 300]
        members = (members * COPIES)[:COPIES]
        first = np.array([t.positions[(5 * k) % len(t.positions)] for k, t in enumerate(members)])
        atoms = Atoms(members[0].numbers)
        cells = None if members[0].cell is None else np.array([t.cell for t in members])
        student = Student(model, members[0].numbers, offsets, cells)
        for temperature in (300, 500):
            energy, heat = constant_energy(student, first, atoms.get_masses(), temperature, steps, seed)
            energy = 1e3 * (energy - energy[0]) / len(atoms)
            time = 1e-3 * TIMESTEP * np.arange(len(energy))
            lost = ~np.isfinite(energy).all(0) | (np.abs(np.nan_to_num(energy)).max(0) > 10)
            slope, fluctuation = np.nan, np.nan
            if not lost.all():
                fits = [np.polyfit(time, energy[:, k], 1) for k in np.flatnonzero(~lost)]
                slope = np.mean([abs(f[0]) for f in fits])
                fluctuation = np.mean(
                    [(energy[:, k] - np.polyval(f, time)).std() for k, f in zip(np.flatnonzero(~lost), fits)]
                )
            rows.append(
                {
                    "system": system,
                    "temperature": temperature,
                    "copies": COPIES,
                    "lost": int(lost.sum()),
                    "drift": slope,
                    "fluctuation": fluctuation,
                    "mean": np.nanmean(heat[len(heat) // 2 :]),
                    "hottest": np.nanmax(heat),
                }
            )
    return rows


def markdown(rows: list[dict]) -> str:
    lines = [
        (
            "| system | start (K) | copies | lost | drift (meV/atom/ps) | fluctuation (meV/atom) "
            "| mean T, 2nd half (K) | hottest (K) |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        lines.append(
            f"| {r['system']} | {r['temperature']} | {r['copies']} | {r['lost']} | {r['drift']:.3f} | "
            f"{r['fluctuation']:.3f} | {r['mean']:.0f} | {r['hottest']:.0f} |"
        )
    return "\n".join(lines)


def input_structures(model: PaiNN, offsets, folder: Path, seed: int, only: list[str] | None = None):
    """Ethanol and a water octamer, cooled to near rest; boxes of 16 and 64 waters (1 g/cm³) after a short run at 300 K.

    Yields each path once it is written.
    """
    rng = np.random.default_rng(seed)
    made = {
        "ethanol": (pack_cluster({"ethanol": 1}, rng), [(0, 1500)]),
        "water8": (pack_cluster({"water": 8}, rng), [(300, 1000), (0, 1500)]),
        "water16": (pack_box({"water": 16}, 1.0, rng), [(300, 2000)]),
        "water64": (pack_box({"water": 64}, 1.0, rng), [(300, 400)]),
    }
    for name in only or made:
        atoms, stages = made[name]
        student = Student(model, atoms.numbers, offsets, np.array(atoms.cell) if atoms.pbc.all() else None)
        atoms.positions = _equilibrated(student, atoms, stages, seed)
        if not atoms.pbc.any():
            atoms.positions -= atoms.get_center_of_mass()
        atoms.wrap()
        atoms.positions = np.round(atoms.positions, 8)
        write(folder / f"{name}.xyz", atoms, format="extxyz")
        yield folder / f"{name}.xyz"


def _equilibrated(student: Student, atoms: Atoms, stages: list[tuple[float, int]], seed: int) -> np.ndarray:
    """Positions after Langevin dynamics at each (temperature in K, steps); 0 K is a damped descent."""
    device = student.device
    generator = torch.Generator(device).manual_seed(seed)
    masses = torch.as_tensor(atoms.get_masses()[:, None], dtype=torch.float64, device=device)
    x = torch.as_tensor(atoms.positions[None], dtype=torch.float64, device=device)

    def normal():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device)

    def force(x):
        return student(x)[1]

    x = settle(student, x, masses, normal)
    for temperature, steps in stages:
        v, f = thermal_velocities(masses, temperature, normal), force(x)
        for _ in range(steps):
            x, v, f = baoab_step(x, v, f, force, masses, TIMESTEP, temperature, FRICTION, normal)
    return x[0].cpu().numpy()
