"""The labelled frames as flat tensors, their pair lists, and batches of them in fixed-size buffers.

Fixed sizes, padded with one dummy atom and one dummy pair beyond the cutoff, let a whole training step be one
CUDA graph; the dummies add exactly zero to every sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .neighbors import pair_list
from .shards import shard_entries


@dataclass
class Trajectory:
    """One label file, or one entry of a shard."""

    system: str
    split: str
    temperature: int
    numbers: np.ndarray  # [N]
    positions: np.ndarray  # [K, N, 3] Å
    energies: np.ndarray  # [K] eV
    forces: np.ndarray  # [K, N, 3] eV/Å
    cell: np.ndarray | None  # [3, 3] Å
    family: str = ""  # what tables group it under

    def __post_init__(self):
        self.family = self.family or self.system


def read_file(path: Path) -> list[Trajectory]:
    """The trajectories of one label file or shard."""
    with np.load(path) as file:
        if "frames" in file:
            return [Trajectory(**entry) for entry in shard_entries({key: file[key] for key in file.files})]
        return [
            Trajectory(
                str(file["system"]),
                str(file["split"]),
                int(file["temperature"]),
                file["numbers"],
                file["positions"],
                file["energies"],
                file["forces"],
                file["cell"] if file["periodic"] else None,
                str(file["family"]) if "family" in file else "",
            )
        ]


def load(folder: Path, largest_force: float) -> list[Trajectory]:
    """Every trajectory in `folder`, without the frames that have a force component beyond `largest_force` (eV/Å)."""
    found = []
    for t in (t for path in sorted(folder.glob("*.npz")) for t in read_file(path)):
        good = np.abs(t.forces).max((1, 2), initial=0.0) < largest_force
        if good.any():
            of_good = {"positions": t.positions[good], "energies": t.energies[good], "forces": t.forces[good]}
            found.append(replace(t, **of_good))
    if not found:
        raise FileNotFoundError(f"no label files in {folder}: run `verlet-train generate` first")
    return found


def fit_offsets(trajectories: list[Trajectory], elements: list[int], near: dict[int, float]) -> dict[int, float]:
    """Energy of each element (eV): least squares on the median energy of every trajectory.

    Where the compositions leave an element's share open (water and ethanol fix two combinations of three), the offset
    stays as near to that in `near`, or to zero, as it can.
    """
    rows, energies = [], []
    for t in trajectories:
        rows.append([(t.numbers == z).sum() / len(t.numbers) for z in elements])
        energies.append(np.median(t.energies) / len(t.numbers))
    free = np.array([near.get(z, 0.0) for z in elements])
    matrix = np.array(rows, float)
    correction = np.linalg.pinv(matrix, rcond=1e-3) @ (np.array(energies) - matrix @ free)
    return {z: float(e) for z, e in zip(elements, free + correction)}


def offset_of(numbers: np.ndarray, offsets: dict[int, float]) -> float:
    return sum(offsets[int(z)] for z in numbers)


def _pair_lists(trajectories: list[Trajectory], cutoff: float) -> Iterator[tuple[np.ndarray, ...]]:
    """Of each trajectory: frame, i, j [P], shift [P, 3] and distance [P] (Å) of its pairs; several at the same time."""

    def pairs_of(t: Trajectory):
        x = torch.as_tensor(t.positions, dtype=torch.float64)
        frame, i, j, shift = pair_list(x, cutoff, None if t.cell is None else torch.as_tensor(t.cell))
        distance = (x[frame, j] - x[frame, i] + shift).norm(dim=1)
        return tuple(found.numpy() for found in (frame, i, j, shift, distance))

    # One core a trajectory: they are too small for several.
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(pairs_of, trajectories)
    finally:
        torch.set_num_threads(cores)


class Frames:
    """All frames of some trajectories, flat, on one device.

    numbers [A], positions [A, 3], forces [A, 3]; energies [F] minus the offsets; for the pairs, ends within their
    frame and shift [P, 3]. `atom_start`, `pair_start` [F + 1] (NumPy) say where each frame lies, `periodic` [F] which
    ones are boxes. The last atom and pair are the dummies.
    """

    def __init__(self, trajectories: list[Trajectory], offsets: dict[int, float], cutoff: float, device="cpu"):
        numbers, positions, forces, energies, first, second, shifts, atoms, pairs = [], [], [], [], [], [], [], [], []
        shortest = np.full((128, 128), np.inf)  # Å, by atomic numbers
        for t, (frame, i, j, shift, distance) in zip(trajectories, _pair_lists(trajectories, cutoff)):
            np.minimum.at(shortest, (t.numbers[i], t.numbers[j]), distance)
            count = len(t.positions)
            pairs.append(np.bincount(frame, minlength=count))
            atoms.append(np.full(count, len(t.numbers)))
            first.append(i)
            second.append(j)
            shifts.append(shift)
            numbers.append(np.tile(t.numbers, count))
            positions.append(t.positions.reshape(-1, 3))
            forces.append(t.forces.reshape(-1, 3))
            energies.append(t.energies - offset_of(t.numbers, offsets))
        known = zip(*np.nonzero(np.isfinite(shortest)))
        self.shortest = {(int(a), int(b)): float(shortest[a, b]) for a, b in known if a <= b}
        self.frame_atoms, self.frame_pairs = np.concatenate(atoms), np.concatenate(pairs)
        self.atom_start = np.concatenate([[0], np.cumsum(self.frame_atoms)])
        self.pair_start = np.concatenate([[0], np.cumsum(self.frame_pairs)])
        self.periodic = np.repeat([t.cell is not None for t in trajectories], [len(t.energies) for t in trajectories])
        self.first, self.second = np.concatenate(first), np.concatenate(second)

        def tensor(parts, dummy, dtype):
            return torch.as_tensor(np.concatenate([*parts, dummy]), dtype=dtype, device=device)

        self.numbers = tensor(numbers, [0], torch.long)
        self.positions = tensor(positions, np.zeros((1, 3)), torch.float32)
        self.forces = tensor(forces, np.zeros((1, 3)), torch.float32)
        self.energies = tensor(energies, [0.0], torch.float32)
        self.shifts = tensor(shifts, [[cutoff + 1, 0, 0]], torch.float32)
        self.device = device

    def energy_per_atom(self) -> tuple[float, float]:
        """Lowest and highest energy of a frame (eV per atom, without the offsets)."""
        each = self.energies[:-1].cpu().numpy() / self.frame_atoms
        return float(each.min()), float(each.max())

    def __len__(self):
        return len(self.frame_atoms)


@dataclass
class Batches:
    """An epoch: row s of each tensor is one batch. Index tensors are int32 on the device of the frames."""

    atom: torch.Tensor  # [S, A] row in Frames' atom tensors
    slot: torch.Tensor  # [S, A] which frame of the batch
    pair: torch.Tensor  # [S, P] row in Frames' pair tensors
    i: torch.Tensor  # [S, P] atom of the batch
    j: torch.Tensor  # [S, P]
    frame: torch.Tensor  # [S, G + 1] row in Frames' energies; the last slot takes the dummies

    def __len__(self):
        return len(self.atom)

    def rows(self, s: int):
        return [t[s] for t in (self.atom, self.slot, self.pair, self.i, self.j, self.frame)]


def epoch_order(frames: Frames, box_repeats: int, rng: np.random.Generator) -> np.ndarray:
    """Every frame once, boxes `box_repeats` times, shuffled."""
    return rng.permutation(np.repeat(np.arange(len(frames)), np.where(frames.periodic, box_repeats, 1)))


def batches(frames: Frames, order: np.ndarray, most_frames: int, most_atoms: int, most_pairs: int) -> Batches:
    """Fills batches with the frames in `order` until one of the three limits is reached."""
    if frames.frame_pairs[order].max() > most_pairs or frames.frame_atoms[order].max() >= most_atoms:
        raise ValueError("one frame alone is larger than a batch: raise batch_pairs or batch_atoms")
    groups, group, a, p = [], [], 0, 0
    for f in order:
        if group and (
            len(group) == most_frames
            or a + frames.frame_atoms[f] >= most_atoms
            or p + frames.frame_pairs[f] > most_pairs
        ):
            groups.append(group)
            group, a, p = [], 0, 0
        group.append(f)
        a += frames.frame_atoms[f]
        p += frames.frame_pairs[f]
    groups.append(group)

    steps = len(groups)
    dummy_atom, dummy_pair, dummy_frame = len(frames.numbers) - 1, len(frames.shifts) - 1, len(frames)
    atom = np.full((steps, most_atoms), dummy_atom, np.int32)
    slot = np.full((steps, most_atoms), most_frames, np.int32)
    pair = np.full((steps, most_pairs), dummy_pair, np.int32)
    i = np.full((steps, most_pairs), most_atoms - 1, np.int32)  # the last atom of a batch is always a dummy
    j = np.full((steps, most_pairs), most_atoms - 1, np.int32)
    frame = np.full((steps, most_frames + 1), dummy_frame, np.int32)
    for s, group in enumerate(groups):
        group = np.array(group)
        atoms, pairs = frames.frame_atoms[group], frames.frame_pairs[group]
        base = np.concatenate([[0], np.cumsum(atoms)])
        a, p = base[-1], pairs.sum()
        atom[s, :a] = _ranges(frames.atom_start[group], atoms)
        slot[s, :a] = np.repeat(np.arange(len(group)), atoms)
        rows = _ranges(frames.pair_start[group], pairs)
        pair[s, :p] = rows
        i[s, :p] = frames.first[rows] + np.repeat(base[:-1], pairs)
        j[s, :p] = frames.second[rows] + np.repeat(base[:-1], pairs)
        frame[s, : len(group)] = group
    return Batches(*(torch.as_tensor(x, device=frames.device) for x in (atom, slot, pair, i, j, frame)))


def _ranges(starts, lengths):
    """Concatenates start … start + length − 1 for every pair of entries."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths) + np.repeat(starts, lengths)
