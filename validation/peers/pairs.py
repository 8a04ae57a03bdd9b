"""Structures as `verlet bench --write-structures` writes them, and their pairs: NumPy alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9, "Si": 14, "P": 15, "S": 16, "Cl": 17}


@dataclass(frozen=True)
class Structure:
    """Atomic numbers [N], positions [N, 3] (Å) and cell [3, 3] (edge vectors as rows, all periodic) or None."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None
    #: Further columns of the file, [N] or [N, width].
    columns: dict[str, np.ndarray]


def read(path: Path) -> Structure:
    """The first frame of an extended XYZ file."""
    with open(path) as file:
        count, comment = int(file.readline()), file.readline()
        rows = [file.readline().split() for _ in range(count)]
    names = re.search(r'Properties="?([^\s"]+)', comment)[1].split(":")
    columns, at = {}, 0
    for name, kind, width in zip(names[::3], names[1::3], map(int, names[2::3])):
        part = [row[at : at + width] for row in rows]
        values = np.array(part) if kind == "S" else np.array(part, dtype=float)
        columns[name] = values[:, 0] if width == 1 else values
        at += width
    lattice = re.search(r'Lattice="([^"]+)"', comment)
    periodic = lattice and "T" in re.search(r'pbc="([^"]+)"', comment)[1]
    cell = np.array(lattice[1].split(), dtype=float).reshape(3, 3) if periodic else None
    numbers = np.array([NUMBERS[symbol] for symbol in columns.pop("species")])
    return Structure(numbers, columns.pop("pos"), cell, columns)


def pair_list(structure: Structure, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every directed pair with |x_j + S·cell − x_i| < cutoff, all images counted: i [P], j [P] and S·cell [P, 3] (Å),
    sorted by i.

    Images of atoms near the cell become atoms of their own; all are sorted into cubes as wide as the cutoff.
    """
    x = structure.positions
    who, shift = np.arange(len(x)), np.zeros((len(x), 3))
    if structure.cell is not None:
        who, shift = images(structure, cutoff)
    everywhere = x[who] + shift
    cube = np.floor((everywhere - everywhere.min(0)) / cutoff).astype(np.int64) + 1
    sides = cube.max(0) + 2  # an empty layer all around: no cube of an atom is at the edge
    number = (cube[:, 0] * sides[1] + cube[:, 1]) * sides[2] + cube[:, 2]
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(sides.prod() + 1))
    # The unshifted image of each atom is the centre of its row.
    centre = np.flatnonzero((shift == 0).all(1))
    centre = centre[np.argsort(who[centre])]
    found = []
    for a, b, c in product((-1, 0, 1), repeat=3):
        there = number[centre] + (a * sides[1] + b) * sides[2] + c
        begin, count = starts[there], starts[there + 1] - starts[there]
        i = np.repeat(np.arange(len(x)), count)
        place = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(begin, count)
        other = order[place]
        near = ((everywhere[other] - x[i]) ** 2).sum(1) < cutoff**2
        near &= other != centre[i]
        found.append((i[near], other[near]))
    i, other = (np.concatenate(parts) for parts in zip(*found))
    rows = np.argsort(i, kind="stable")
    i, other = i[rows], other[rows]
    return i, who[other], shift[other]


def images(structure: Structure, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """All images of atoms that can be within the cutoff of an atom: whose [M], and how far they are moved [M, 3]."""
    cell = structure.cell
    inverse = np.linalg.inv(cell)
    reach = cutoff * np.linalg.norm(inverse, axis=0)  # the cutoff in units of the distance between opposite faces
    fractional = structure.positions @ inverse
    low, high = fractional.min(0) - reach, fractional.max(0) + reach
    first = np.floor(low - fractional.max(0)).astype(int)
    last = np.ceil(high - fractional.min(0)).astype(int)
    who, shift = [], []
    for step in product(*(range(a, b + 1) for a, b in zip(first, last))):
        moved = fractional + step
        inside = np.flatnonzero(((moved >= low) & (moved <= high)).all(1))
        who.append(inside)
        shift.append(np.tile(np.array(step) @ cell if any(step) else np.zeros(3), (len(inside), 1)))
    return np.concatenate(who), np.concatenate(shift)
