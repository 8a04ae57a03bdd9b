"""Label jobs about the molecules of a structures file: thermal frames, strained ones, pairs, clusters.

Where a system is at a temperature does not depend on its masses. So this dynamics gives every atom MASS: no bond
vibrates faster than one of two carbon atoms then, a step can be four times longer than with true masses, and a label,
which costs the same, moves the molecule four times further. Positions are kept on a grid of GRID: they fit 16 bits,
and the label is that of exactly the position stored.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from .config import Clusters, Config, Pairs, Strained, Thermal
from .dynamics import baoab_step, thermal_velocities
from .labels import Job, Labels
from .molecules.library import Molecule, read_library
from .placing import at_random, hydrogen_bonded, radii, slide, stacked, unit
from .problem import InputError
from .shards import GRID
from .structures import molecule as built
from .structures import random_rotation
from .teacher import TeacherFailed, ask

MASS = 12.0  # u
TIMESTEP = 2.0  # fs; the stiffest bond (k = 100 eV/Å²) then turns by 0.8 rad a step
FRICTION = 0.02  # 1/fs
WARM_STEPS = 6  # of dynamics at 300 K before a molecule is strained, from the structures file's geometry
TOUCH = 0.85  # of the van der Waals radii: how near molecules of a fresh cluster are
TOUCH_WATER = 0.7  # likewise where one of the two is water


def on_grid(x: np.ndarray) -> np.ndarray:
    return np.round(x / GRID) * GRID


def molecules_of(config: Config) -> list[Molecule]:
    """The molecules of the configuration's file. Raises InputError where one has an element that the model has not."""
    library = read_library(config.structures())
    for m in library:
        if strange := sorted(set(m.numbers.tolist()) - set(config.elements)):
            named = ", ".join(chemical_symbols[z] for z in strange)
            raise InputError(f"{config.structures()}: {m.smiles} has {named}: add {strange} to `elements`")
    return library


def library_jobs(config: Config) -> list[Job]:
    """The jobs of the entries that draw from the structures file; none without such entries."""
    entries = [*config.thermal, *config.strained, *config.pairs, *config.clusters]
    if not entries:
        return []
    library = molecules_of(config)
    fraction = config.molecules.test_fraction
    found = []

    def add(kind, number, entry, index, run, members, **given):
        split, temperature = given["split"], given.get("temperature", 0)
        name = f"{split}-{kind}{number}-{index:05d}-{run}.npz"
        found.append(
            Job(
                entry,
                temperature,
                run,
                config.seed,
                config.teacher,
                config.data / name,
                members=tuple(members),
                system=given["system"],
                family=given["family"],
                split=split,
            )
        )

    def alone(kind, number, runs, further=False):
        """Every run of every molecule, of the main ones or of the further: (index, molecule, run, split).

        Where the molecules belong to no split, so many of the runs are for the test, at least one, drawn at random.
        """
        splits = {"further"} if further else {"train", "test", ""}
        listed = [(i, m, run) for i, m in enumerate(library) if m.split in splits for run in range(runs)]
        order = np.random.default_rng([config.seed, 3, kind, number]).permutation(len(listed))
        tested = set(order[: max(1, round(fraction * len(listed)))]) if fraction and len(listed) > 1 else set()
        for k, (index, m, run) in enumerate(listed):
            yield index, m, run, "train" if further else m.split or ("test" if k in tested else "train")

    for number, entry in enumerate(config.thermal):
        further = entry.molecules == "further"
        if further and not any(m.split == "further" for m in library):
            raise InputError(
                f"{config.structures()} has no further molecules for [[thermal]]: "
                "set [molecules] further_fraction and make it again"
            )
        for index, m, run, split in alone(0, number, entry.runs, further):
            temperature = entry.temperatures[(index + run) % len(entry.temperatures)]
            names = {"system": m.smiles, "family": m.family, "split": split, "temperature": temperature}
            add("thermal", number, entry, index, run, [m], **names)
    for number, entry in enumerate(config.strained):
        for index, m, run, split in alone(1, number, entry.runs):
            add("strained", number, entry, index, run, [m], system=m.smiles, family="strained", split=split)
    for number, entry in enumerate(config.pairs):
        rng = np.random.default_rng([config.seed, 1, number])
        for index in range(entry.pairs):
            split, pair = _draw(library, 2, entry.largest, rng, fraction)
            system = " + ".join(m.smiles for m in pair)
            add("pairs", number, entry, index, 0, pair, system=system, family="pairs", split=split)
    for number, entry in enumerate(config.clusters):
        rng = np.random.default_rng([config.seed, 2, number])
        for index in range(entry.runs):
            split, solutes = _draw(library, entry.solutes, entry.largest, rng, fraction)
            waters = int(rng.integers(entry.waters[0], entry.waters[1] + 1))
            if entry.solutes == 0 and waters == 0:
                raise InputError(f"[clusters] {entry.family}: a cluster of no solutes and no water")
            if not solutes:
                split = "test" if rng.random() < entry.test_fraction else "train"
            system = " + ".join([m.smiles for m in solutes] + [f"{waters} O"] * (waters > 0))
            temperature = entry.temperatures[index % len(entry.temperatures)]
            members = [*solutes, *[WATER] * waters]
            names = {"system": system, "family": entry.family, "split": split, "temperature": temperature}
            add("clusters", number, entry, index, 0, members, **names)
    return found


def _water() -> Molecule:
    atoms = built("water", np.random.default_rng(0))
    oxygen = int(np.flatnonzero(atoms.numbers == 8)[0])
    bonds = np.array([(oxygen, k) for k in range(3) if k != oxygen])
    return Molecule("O", "water clusters", "train", atoms.numbers, bonds, atoms.positions[None])


WATER = _water()


def _draw(library: list[Molecule], count: int, largest: int, rng, test_fraction: float) -> tuple[str, list[Molecule]]:
    """A split, and `count` molecules of at most `largest` atoms, all of it: a test molecule meets test molecules only."""
    split = "test" if rng.random() < test_fraction else "train"
    eligible = [m for m in library if m.split in (split, "") and m.cell is None and len(m.numbers) <= largest]
    if count and not eligible:
        raise InputError(f"the structures file has no {split} molecule of at most {largest} atoms: raise `largest`")
    return split, [eligible[k] for k in rng.integers(len(eligible), size=count)] if count else []


def _conformer(m: Molecule, rng) -> np.ndarray:
    return m.conformers[rng.integers(len(m.conformers))]


def _dynamics(
    labels: Labels, x, temperature: float, start: float, settle: int, frames: int, every: int, rng, diverse=False
):
    """Keeps `frames` frames of Langevin dynamics from `x`, velocities drawn at `start` (K); returns the last x.

    They are each `every`-th, or, if `diverse`, those most unlike each other of all steps.

    A frame for which the teacher fails ends the run; what was kept stays.
    """
    atoms = labels.atoms
    masses = np.full((len(atoms), 1), MASS)

    def force(x):
        atoms.positions = on_grid(x)
        return ask(atoms)[1]

    def normal():
        return rng.normal(size=x.shape)

    x, v = on_grid(x), thermal_velocities(masses, start, normal)
    try:
        f = force(x)
        for step in range(1, settle + frames * every + 1):
            x, v, f = baoab_step(x, v, f, force, masses, TIMESTEP, temperature, FRICTION, normal)
            x = on_grid(x)
            if step > settle and (diverse or (step - settle) % every == 0):
                labels.keep(x, *ask(atoms))
    except TeacherFailed as error:
        labels.refuse(error)
    if diverse:
        labels.thin(frames)
    return x


def _thermal(job: Job, rng, calculator) -> Labels:
    (m,), entry = job.members, job.entry
    labels = Labels(Atoms(m.numbers, cell=m.cell, pbc=m.cell is not None, calculator=calculator))
    x = m.conformers[job.index % len(m.conformers)]
    # From a minimum, half of the kinetic energy turns into potential energy within a vibration or two.
    diverse = entry.diverse and job.split == "train"
    _dynamics(labels, x, job.temperature, 2 * job.temperature, entry.settle, entry.frames, entry.every, rng, diverse)
    return labels


def _strained(job: Job, rng, calculator) -> Labels:
    (m,), entry = job.members, job.entry
    labels = Labels(Atoms(m.numbers, cell=m.cell, pbc=m.cell is not None, calculator=calculator))
    rest = _dynamics(labels, _conformer(m, rng), 300.0, 300.0, WARM_STEPS, 0, 1, rng)
    for frame in range(entry.frames):
        x = rest
        if frame % 2 and len(m.bonds):
            x = stretched(x, m.bonds, m.bonds[rng.integers(len(m.bonds))], rng.uniform(*entry.stretch))
        low, high = entry.rattle
        labels.label(on_grid(x + rng.normal(0, low if frame % 2 else rng.uniform(low, high), x.shape)))
    return labels


def stretched(x: np.ndarray, bonds: np.ndarray, bond: np.ndarray, factor: float) -> np.ndarray:
    """The bond's length times `factor`; what hangs on its smaller side moves along, in a ring the second atom alone."""
    fixed, moved = (int(k) for k in bond)
    others = [b for b in bonds.tolist() if set(b) != {fixed, moved}]

    def side(start):
        reached, newest = {start}, {start}
        while newest:
            newest = {q for a, b in others for p, q in ((a, b), (b, a)) if p in newest} - reached
            reached |= newest
        return reached

    of_fixed, of_moved = side(fixed), side(moved)
    if moved in of_fixed:
        of_moved = {moved}
    elif len(of_moved) > len(of_fixed):
        fixed, moved, of_moved = moved, fixed, of_fixed
    x = x.copy()
    x[sorted(of_moved)] += (factor - 1) * (x[moved] - x[fixed])
    return x


def _placed(first: Molecule, second: Molecule, rng):
    """A conformer of each in one of the three arrangements, with the direction of approach."""
    one, two = _conformer(first, rng), _conformer(second, rng)
    kind = rng.integers(3)
    if kind == 1:
        return stacked(one, two, rng)
    if kind == 2 and (bonded := hydrogen_bonded(one, two, rng, first, second)) is not None:
        return bonded
    return at_random(one, two, rng)


def _pairs(job: Job, rng, calculator) -> Labels:
    first, second = job.members
    entry = job.entry
    labels = Labels(Atoms(np.concatenate([first.numbers, second.numbers]), calculator=calculator))
    for _ in range(entry.frames):
        one, two, direction = _placed(first, second, rng)
        one, two = (x + rng.normal(0, entry.rattle, x.shape) for x in (one, two))
        wall = rng.random() < entry.walls
        factor = rng.uniform(*(entry.covalent if wall else entry.contact))
        of = [radii(m.numbers, wall) for m in (first, second)]
        labels.label(on_grid(np.concatenate([one, slide(one, of[0], two, of[1], direction, factor)])))
    return labels


def _clusters(job: Job, rng, calculator) -> Labels:
    entry = job.entry
    numbers, x, reach = job.members[0].numbers, _conformer(job.members[0], rng), None
    if len(job.members) == 2:
        x, two, direction = _placed(*job.members, rng)
        watery = "O" in [m.smiles for m in job.members]
        factor = TOUCH_WATER if watery or rng.random() < 0.5 else TOUCH
        reach = [radii(m.numbers, False) for m in job.members]
        x = np.concatenate([x, slide(x, reach[0], two, reach[1], direction, factor)])
        numbers = np.concatenate([numbers, job.members[1].numbers])
    else:
        for m in job.members[1:]:
            new = _conformer(m, rng) @ random_rotation(rng).T + x.mean(0)
            factor = TOUCH_WATER if m.smiles == "O" else TOUCH
            new = slide(x, radii(numbers, False), new, radii(m.numbers, False), unit(rng), factor)
            x, numbers = np.concatenate([x, new]), np.concatenate([numbers, m.numbers])
    labels = Labels(Atoms(numbers, calculator=calculator))
    start = x - x.mean(0)
    _dynamics(labels, start, job.temperature, job.temperature, entry.settle, entry.frames, entry.every, rng)
    return labels


SAMPLERS = {Thermal: _thermal, Strained: _strained, Pairs: _pairs, Clusters: _clusters}
