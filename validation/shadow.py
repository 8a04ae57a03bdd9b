"""The shadow energy of velocity Verlet, from frames and the engine's forces."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import ase
import ase.io
import h5py
import numpy as np
from engine import Failure, Run
from parity import write

#: Time along the velocities of the two points of a central difference, fs: a thousandth of an O–H vibration.
DELTA = 0.01
#: eV in one u Å²/fs².
MASS_VELOCITY2 = 103.642697


def shadow(binary: Path, model: Path, run: Run, timestep: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (ps) of a run's frames, their energies H, and H̃ − H in eV: Δt² (vᵀ U″ v / 12 − Σ |F|²/m / 24)."""
    with h5py.File(run.trajectory) as file:
        group = file["particles/trajectory"]
        x, v = group["position/value"][:], group["velocity/value"][:] * 1e-3  # Å, Å/fs
        steps, times = group["position/step"][:], group["position/time"][:]
        numbers = group["species"][:]
        box = group["box"]
        periodic = [text == b"periodic" for text in box.attrs["boundary"]]
        cell = box["edges/value"][0].tolist() if any(periodic) else None
    step_of = {step: row for row, step in enumerate(run.log["step"])}
    energy = run.log["conserved"][[step_of[step] for step in steps]]
    points = np.concatenate([x, x - DELTA * v, x + DELTA * v])
    forces = forces_at(binary, model, numbers, cell, periodic, points)
    here, before, after = np.split(forces, 3)
    curvature = -np.einsum("nac,nac->n", (after - before) / (2 * DELTA), v)  # eV/fs²
    squares = np.einsum("nac,nac,a->n", here, here, 1 / (MASS_VELOCITY2 * run.masses))  # eV/fs²
    return times, energy, timestep**2 * (curvature / 12 - squares / 24)


def forces_at(binary: Path, model: Path, numbers, cell, periodic, points: np.ndarray) -> np.ndarray:
    """Forces in float64 with exact radial filters, eV/Å, [point][atom][3]."""
    cases = [
        {"atomic_numbers": numbers, "positions_angstrom": point.tolist(), "cell_angstrom": cell, "pbc": periodic}
        for point in points
    ]
    with tempfile.TemporaryDirectory() as scratch:
        given, answered = Path(scratch) / "points.xyz", Path(scratch) / "forces.xyz"
        write(given, cases)
        command = [binary.resolve(), "evaluate", "--model", model, given, "--output", answered]
        done = subprocess.run([*command, "--backend", "cpu", "--precision", "f64"], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(done.stderr.strip())
        return np.array([atoms.get_forces() for atoms in ase.io.read(answered, ":")])
