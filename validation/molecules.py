"""Molecules that the shipped model has not seen: which of the test frames are run, and whether their bonds hold."""

from __future__ import annotations

import hashlib
import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "training"))
from verlet_train.shards import shard_entries  # noqa: E402 (found by the line before)

FRAMES = ROOT / "validation/organic-test"
#: Families of single molecules; the others are pairs, clusters, boxes and frames at no temperature.
CLASSES = """alkanes aromatics carbonyls drug-like halogens heterocycles nitrogen nucleobases oxygen peptides sugars sulfur
    unsaturated"""
#: Covalent radii, Å: Cordero et al., Dalton Trans. 2008, 2832.
RADII = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57, 16: 1.05, 17: 1.02}
SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F", 16: "S", 17: "Cl"}
#: In units of the sum of the radii: at the start, atoms nearer than the first are bonded. A bond longer than the second is
#: broken; atoms that were not bonded and come nearer than the third have formed one.
BONDED, BROKEN, FORMED = 1.3, 1.5, 1.15


class Molecule(NamedTuple):
    """A molecule and where its run starts: a frame of GFN2-xTB dynamics at 300 K."""

    name: str  # SMILES
    family: str
    numbers: np.ndarray  # [atom]
    positions: np.ndarray  # Å, [atom][3]

    def moved(self, by: np.ndarray) -> Molecule:
        """The same, with its centre at `by`."""
        return self._replace(positions=self.positions - self.positions.mean(axis=0) + by)


def unseen(count: int, folder: Path = FRAMES) -> list[Molecule]:
    """`count` test molecules in turns from every class; which of a class come first is a hash of their names."""
    waiting: dict[str, dict[str, Molecule]] = {family: {} for family in CLASSES.split()}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            data = {key: file[key] for key in file.files}
        for entry in shard_entries(data):
            some = waiting.get(entry["family"])
            if some is not None and entry["temperature"] == 300:
                positions = entry["positions"][-1].astype(float)
                some.setdefault(entry["system"], Molecule(entry["system"], entry["family"], entry["numbers"], positions))
    queues = [sorted(some.values(), key=lambda one: digest(one.name)) for some in waiting.values()]
    picked = turns(queues)[:count]
    if len(picked) < count:
        raise ValueError(f"{folder} has {len(picked)} molecules with frames at 300 K: ask for no more")
    return picked


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def turns(queues: list[list]) -> list:
    """One of each queue after the other, again and again, until all are empty."""
    rounds = itertools.zip_longest(*queues)
    return [one for some in rounds for one in some if one is not None]


def of_ten_classes(molecules: list[Molecule], count: int, atoms: int = 17) -> list[Molecule]:
    """One molecule of each of `count` classes: those with about so many atoms, since small systems cost the same."""
    nearest: dict[str, Molecule] = {}
    for one in sorted(molecules, key=lambda one: (abs(len(one.numbers) - atoms), one.family, one.name)):
        nearest.setdefault(one.family, one)
    return list(nearest.values())[:count]


def apart(molecules: list[Molecule], spacing: float) -> list[Molecule]:
    """The molecules on the points of a cubic grid, `spacing` Å from one another."""
    side = int(np.ceil(len(molecules) ** (1 / 3) - 1e-9))
    grid = spacing * (np.array(list(np.ndindex(side, side, side))) - (side - 1) / 2)
    return [one.moved(point) for one, point in zip(molecules, grid)]


def write(path: Path, molecules: list[Molecule]) -> None:
    """All of them as one XYZ file."""
    atoms = [(SYMBOLS[int(z)], *map(float, x)) for one in molecules for z, x in zip(one.numbers, one.positions, strict=True)]
    lines = [f"{symbol} {x!r} {y!r} {z!r}" for symbol, x, y, z in atoms]
    path.write_text("\n".join([str(len(atoms)), " + ".join(one.name for one in molecules), *lines]) + "\n")


def bonds(numbers: np.ndarray, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Bonds of the first frame, and what becomes of them; frames in Å, [frame][atom][3].

    `stretch` [frame]: the longest bond of a frame in units of the sum of its radii; `growth` [frame]: in units of its first
    length; `contact` [frame]: the nearest two atoms that were not bonded, in units of the sum of their radii.
    """
    first, second = np.triu_indices(len(numbers), k=1)
    radii = np.array([RADII[int(z)] for z in numbers])
    distances = np.linalg.norm(frames[:, first] - frames[:, second], axis=2) / (radii[first] + radii[second])
    bonded = distances[0] < BONDED
    return {
        "stretch": distances[:, bonded].max(axis=1),
        "growth": (distances[:, bonded] / distances[0, bonded]).max(axis=1),
        "contact": distances[:, ~bonded].min(axis=1, initial=np.inf),
    }


def spoiled(numbers: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The frames with one bond broken and one formed on purpose: the last atom of the last frame sits beside another."""
    wrong = frames.copy()
    last = len(numbers) - 1
    far = int(np.linalg.norm(frames[-1] - frames[-1, last], axis=1).argmax())
    length = RADII[int(numbers[far])] + RADII[int(numbers[last])]
    outward = frames[-1, far] - frames[-1].mean(axis=0)
    wrong[-1, last] = frames[-1, far] + length * outward / np.linalg.norm(outward)
    return wrong
