"""Langevin dynamics, for the teacher (NumPy, one system) and the student (PyTorch, many systems at once) alike."""

from __future__ import annotations

import math

ACCELERATION = 9.648533212331e-3  # eV/(Å u) in Å/fs², CODATA 2018
BOLTZMANN = 8.617333262e-5  # eV/K


def thermal_velocities(masses, temperature, normal):
    """Maxwell–Boltzmann velocities (Å/fs) for masses [N, 1] (u); normal() draws unit normal deviates [..., N, 3]."""
    return (BOLTZMANN * temperature * ACCELERATION / masses) ** 0.5 * normal()


def baoab_step(x, v, f, force, masses, dt, temperature, friction, normal):
    """One BAOAB step (Leimkuhler and Matthews 2013): x (Å), v (Å/fs), f (eV/Å), dt (fs), friction (1/fs).

    force(x) returns the forces at x. Friction 0 is velocity Verlet. Returns the new (x, v, f).
    """
    kick = 0.5 * dt * ACCELERATION / masses
    v = v + kick * f
    x = x + 0.5 * dt * v
    if friction > 0:
        keep = math.exp(-friction * dt)
        v = keep * v + math.sqrt(1 - keep * keep) * thermal_velocities(masses, temperature, normal)
    x = x + 0.5 * dt * v
    f = force(x)
    v = v + kick * f
    return x, v, f
