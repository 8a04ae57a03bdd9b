"""Errors on the held-out trajectories, by family (the system, unless the labels name a class) and temperature."""

from __future__ import annotations

import numpy as np
import torch

from .dataset import Trajectory
from .painn import PaiNN
from .student import Student


def table(model: PaiNN, offsets: dict[int, float], trajectories: list[Trajectory], split: str = "test") -> list[dict]:
    """One row for each (family, temperature): MAE and RMSE of forces (meV/Å, per component) and energies (meV/atom)."""
    groups: dict[tuple, list[Trajectory]] = {}
    for t in trajectories:
        if t.split == split:
            groups.setdefault((t.family, t.temperature), []).append(t)
    rows = []
    for (family, temperature), members in sorted(groups.items()):
        force_errors, energy_errors, means = [], [], []
        for t in members:
            student = Student(model, t.numbers, offsets, t.cell)
            errors = []
            for part in np.array_split(np.arange(len(t.energies)), max(1, len(t.energies) * len(t.numbers) // 400)):
                energy, forces = student(torch.as_tensor(t.positions[part], device=student.device))
                force_errors.append(1e3 * np.abs(forces.cpu().numpy() - t.forces[part]).ravel())
                errors.append(1e3 * (energy.cpu().numpy() - t.energies[part]) / len(t.numbers))
            errors = np.concatenate(errors)
            energy_errors.append(errors)
            means.append(errors.mean())
        f, e = np.concatenate(force_errors), np.concatenate(energy_errors)
        rows.append(
            {
                "family": family,
                "temperature": temperature,
                "trajectories": len(members),
                "frames": len(e),
                "force_mae": f.mean(),
                "force_rmse": np.sqrt((f**2).mean()),
                "energy_mae": np.abs(e).mean(),
                "energy_bias": e.mean(),
            }
        )
    return rows


def markdown(rows: list[dict]) -> str:
    lines = [
        (
            "| family | T (K) | trajectories | frames | force MAE (meV/Å) | force RMSE (meV/Å) "
            "| energy MAE (meV/atom) | energy bias (meV/atom) |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        lines.append(
            f"| {r['family']} | {r['temperature']} | {r['trajectories']} | {r['frames']} | {r['force_mae']:.1f} | "
            f"{r['force_rmse']:.1f} | {r['energy_mae']:.2f} | {r['energy_bias']:+.2f} |"
        )
    return "\n".join(lines)
