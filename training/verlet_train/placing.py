"""Molecules put beside each other: at random, stacked, hydrogen-bonded; and how far apart. Lengths in Å."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii, vdw_radii

from .structures import random_rotation

VAN_DER_WAALS = np.where(np.isnan(vdw_radii), 2.0, vdw_radii)
DONORS = ACCEPTORS = (7, 8)  # atomic numbers; fluorine and sulfur bond so weakly that random placements serve them
SIDEWAYS = 1.5  # of one stacked molecule's centre against the other's


def slide(fixed, fixed_radii, moving, moving_radii, direction, factor: float) -> np.ndarray:
    """`moving` [M, 3] along the unit vector `direction`, as near to `fixed` [N, 3] as `factor` allows.

    Coming from far out it stops where the first two atoms touch: where their distance is `factor` times the sum of
    their radii. For each pair that is the larger root of |m + t d − f|² = (factor (r_m + r_f))².
    """
    delta = moving[:, None] - fixed[None]
    reach = factor * (moving_radii[:, None] + fixed_radii[None])
    along = delta @ direction
    inside = along**2 - (delta**2).sum(-1) + reach**2
    if (inside < 0).all():  # they pass each other: come no nearer than the closest approach
        return moving - along.min() * direction
    return moving + np.where(inside >= 0, -along + np.sqrt(np.maximum(inside, 0)), -np.inf).max() * direction


def radii(numbers: np.ndarray, covalent: bool) -> np.ndarray:
    return (covalent_radii if covalent else VAN_DER_WAALS)[numbers]


def unit(rng: np.random.Generator) -> np.ndarray:
    """A direction, uniform over the sphere."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def turned_to(vector: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rotation matrix that takes the unit `vector` to the unit `target`, with a random turn about it."""

    def frame(axis):
        other = np.eye(3)[np.abs(axis).argmin()]
        second = np.cross(axis, other)
        second /= np.linalg.norm(second)
        return np.stack([axis, second, np.cross(axis, second)], 1)

    angle = rng.uniform(0, 2 * np.pi)
    spin = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return frame(target) @ spin @ frame(vector).T


def at_random(first, second, rng):
    """Both molecules turned at random about their centres; returns (first, second, direction of approach)."""
    return first @ random_rotation(rng).T, second @ random_rotation(rng).T, unit(rng)


def stacked(first, second, rng):
    """The flattest sides of both face each other, shifted sideways a little."""
    axis = np.array([0.0, 0.0, 1.0])
    placed = []
    for x in (first, second):
        x = x - x.mean(0)
        normal = np.linalg.svd(x, full_matrices=True)[2][-1]  # the direction in which the molecule extends least
        placed.append(x @ turned_to(normal, axis * rng.choice([-1, 1]), rng).T)
    placed[1][:, :2] += rng.uniform(-SIDEWAYS, SIDEWAYS, 2)
    return placed[0], placed[1], axis


def hydrogen_bonded(first, second, rng, first_molecule, second_molecule):
    """A donor's hydrogen of `first` points at an acceptor of `second`; None where there is no such pair."""
    numbers, bonds = first_molecule.numbers, first_molecule.bonds
    donors = [(a, b) for pair in bonds for a, b in (pair, pair[::-1]) if numbers[a] in DONORS and numbers[b] == 1]
    acceptors = np.flatnonzero(np.isin(second_molecule.numbers, ACCEPTORS))
    if not donors or len(acceptors) == 0:
        return None
    heavy, light = donors[rng.integers(len(donors))]
    acceptor = acceptors[rng.integers(len(acceptors))]
    first = (first - first[light]) @ random_rotation(rng).T
    direction = first[light] - first[heavy]
    direction /= np.linalg.norm(direction)
    bonded = second_molecule.bonds[(second_molecule.bonds == acceptor).any(1)]
    neighbours = [b if a == acceptor else a for a, b in bonded]
    outward = second[acceptor] - second[neighbours].mean(0)  # where an acceptor's lone pairs are, roughly
    length = np.linalg.norm(outward)
    outward = outward / length if length > 0.1 else unit(rng)
    return first, (second - second[acceptor]) @ turned_to(outward, -direction, rng).T, direction
