"""Starting structures: single molecules, packed clusters, periodic boxes. Lengths in Å, densities in g/cm³."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule as ase_molecule

WATER_VOLUME = 29.9  # Å³ a molecule at 1 g/cm³
CLOSEST_HEAVY = 2.6  # Å between heavy atoms of different molecules in a fresh packing
CLOSEST_ANY = 1.7  # Å between any two atoms of different molecules in a fresh packing
# A liquid's density leaves no grid these distances everywhere. Molecules this much closer (Å) still part in a few cold
# steps; hydrogens of two molecules closer than about 1.1 Å do not: they stay together as if bonded.
BOX_SQUEEZE = 0.3
PLACE_TRIES = 60  # of one molecule in a box
BOX_TRIES = 50


def molecule(name: str, rng: np.random.Generator) -> Atoms:
    """One molecule about the origin, turned at random; ethanol comes trans or gauche(±) with equal chance."""
    if name == "water":
        atoms = ase_molecule("H2O")
    elif name == "ethanol":
        atoms = ase_molecule("CH3CH2OH")
        carbons = [a.index for a in atoms if a.symbol == "C"]
        oxygen = next(a.index for a in atoms if a.symbol == "O")
        hydroxyl = min((a.index for a in atoms if a.symbol == "H"), key=lambda h: atoms.get_distance(h, oxygen))
        alpha, beta = sorted(carbons, key=lambda c: atoms.get_distance(c, oxygen))
        atoms.set_dihedral(beta, alpha, oxygen, hydroxyl, rng.choice([180.0, 60.0, -60.0]), indices=[hydroxyl])
    else:
        raise ValueError(f"unknown molecule '{name}': water and ethanol can be built")
    atoms.positions -= atoms.get_center_of_mass()
    atoms.positions = atoms.positions @ random_rotation(rng).T
    return atoms


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A rotation matrix [3, 3], uniform over all rotations (QR of a Gaussian matrix, signs fixed)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def volume(name: str) -> float:
    """Volume (Å³) of one molecule in a liquid of 1 g/cm³."""
    return WATER_VOLUME * {"water": 18.015, "ethanol": 46.069}[name] / 18.015


def cluster_radius(molecules: dict[str, int], density: float) -> float:
    """Radius (Å) of a sphere that holds these molecules at `density`."""
    return (3 * sum(n * volume(name) for name, n in molecules.items()) / density / (4 * np.pi)) ** (1 / 3)


def pack_cluster(
    molecules: dict[str, int], rng: np.random.Generator, density: float = 0.5, shuffle: bool = True
) -> Atoms:
    """Molecules at random places and orientations in a sphere about the origin, none closer than CLOSEST_*.

    The sphere grows a little after every hundred refused placements, so that the packing always ends.
    """
    names = [name for name, count in molecules.items() for _ in range(count)]
    radius = cluster_radius(molecules, density)
    packed = Atoms()
    refused = 0
    for name in rng.permutation(names) if shuffle else names:
        while True:
            new = molecule(str(name), rng)
            if len(names) > 1:
                direction = rng.normal(size=3)
                new.positions += direction / np.linalg.norm(direction) * radius * rng.random() ** (1 / 3)
            if len(packed) == 0 or clearance(packed, new) >= 0:
                packed += new
                break
            refused += 1
            if refused % 100 == 0:
                radius *= 1.05
    return packed


def clearance(a: Atoms, b: Atoms, cell: np.ndarray | None = None) -> float:
    """Distance to spare (Å) between the atoms of a and b; negative when they are closer than CLOSEST_* allow."""
    delta = b.positions[None] - a.positions[:, None]
    if cell is not None:  # orthorhombic cells only: this is for building boxes
        delta -= np.round(delta / cell) * cell
    distance = np.linalg.norm(delta, axis=-1)
    heavy = (a.numbers[:, None] > 1) & (b.numbers[None] > 1)
    return float((distance - np.where(heavy, CLOSEST_HEAVY, CLOSEST_ANY)).min())


def pack_box(molecules: dict[str, int], density: float, rng: np.random.Generator) -> Atoms:
    """A cubic periodic box: molecules on jittered sites of a grid, each turned to keep clear of the rest.

    A box in which some molecule finds no room is given up and begun again. Raises ValueError when BOX_TRIES of them
    were: the density is too high.
    """
    names = [name for name, count in molecules.items() for _ in range(count)]
    edge = (sum(n * volume(name) for name, n in molecules.items()) / density) ** (1 / 3)
    for _ in range(BOX_TRIES):
        if (box := _filled_box(names, edge, rng)) is not None:
            return box
    contents = " and ".join(f"{count} {name}" for name, count in molecules.items())
    raise ValueError(
        f"{contents} at {density} g/cm³ overlapped in each of {BOX_TRIES} packings of a box: choose a lower density"
    )


def _filled_box(names: list[str], edge: float, rng: np.random.Generator) -> Atoms | None:
    """One attempt at a box of `edge` (Å): every molecule takes the roomiest of up to PLACE_TRIES places.

    None when even that one is closer than BOX_SQUEEZE allows.
    """
    per_edge = int(np.ceil(len(names) ** (1 / 3) - 1e-9))
    sites = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3, indexing="ij"), -1).reshape(-1, 3)
    free = list(sites * (edge / per_edge))
    cell = np.full(3, edge)
    box = Atoms(cell=cell, pbc=True)
    for name in names:
        best, best_room, best_site = None, -BOX_SQUEEZE, 0
        for _ in range(PLACE_TRIES):
            site = rng.integers(len(free))
            new = molecule(name, rng)
            new.positions += free[site] + rng.normal(0.0, 0.15, 3)
            room = np.inf if len(box) == 0 else clearance(box, new, cell)
            if room >= best_room:
                best, best_room, best_site = new, room, site
            if room >= 0:
                break
        if best is None:
            return None
        box += best
        del free[best_site]
    return box
