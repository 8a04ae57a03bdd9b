"""Shards: many label files gathered in one, at 12 bytes an atom and frame before compression.

A shard (compressed npz) holds flat arrays. Of each trajectory [T]: system, family, split, temperature, atoms, frames,
periodic, exact; of the periodic ones, in their order, cell [·, 3, 3] (Å). Of all trajectories, one after the other:
numbers [ΣN], energies [ΣK] (eV, float64), forces [ΣK·N, 3] (eV/Å, float16, whose rounding is at most 1/2048 of the
value). Positions lie in `grid` [·, 3] (int16, in units of GRID) where that is exact, and in `positions` [·, 3] (Å,
float32) otherwise; `exact` says which.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

GRID = 2.0**-10  # Å: the grid of the dynamics in sampling.py; 16 bits of it span ±32 Å
OVERHEAD = 8192  # bytes: the archive's own entries and the arrays' headers


def gridded(positions: np.ndarray) -> np.ndarray | None:
    """Positions as int16 in units of GRID; None unless that is exact."""
    units = positions.astype(np.float64) / GRID
    whole = np.rint(units)
    if (whole != units).any() or np.abs(whole).max(initial=0) > np.iinfo(np.int16).max:
        return None
    return whole.astype(np.int16)


def _arrays(path: Path) -> dict[str, np.ndarray] | None:
    """What a shard stores of one label file, each array with a leading axis to join on; None for a file of no frame."""
    with np.load(path) as file:
        data = {key: file[key] for key in file.files}
    frames, atoms = len(data["energies"]), len(data["numbers"])
    if frames == 0:
        return None
    grid = gridded(data["positions"])
    none = np.zeros((0, 3))
    return {
        "system": data["system"][None],
        "family": data.get("family", data["system"])[None],
        "split": data["split"][None],
        "temperature": np.array([data["temperature"]], np.int16),
        "atoms": np.array([atoms], np.int16),
        "frames": np.array([frames], np.int32),
        "periodic": np.array([bool(data["periodic"])]),
        "exact": np.array([grid is not None]),
        "cell": data["cell"][None] if data["periodic"] else np.zeros((0, 3, 3)),
        "numbers": data["numbers"].astype(np.uint8),
        "energies": data["energies"],
        "forces": data["forces"].reshape(-1, 3).astype(np.float16),
        "grid": (none if grid is None else grid.reshape(-1, 3)).astype(np.int16),
        "positions": (data["positions"].reshape(-1, 3) if grid is None else none).astype(np.float32),
    }


def pack(source: Path, target: Path, most_bytes: int, name: str = "shard") -> Iterator[tuple[Path, int]]:
    """Gathers the label files of `source` in shards of at most `most_bytes` in `target`; yields each with its frames.

    Shards are called `name`-000.npz and so on; those of an earlier packing under this name are replaced. Raises
    FileNotFoundError where there is nothing to gather.
    """
    files = sorted(source.glob("*.npz"))
    if not files:
        raise FileNotFoundError(f"no label files in {source}: run `verlet-train generate` first")
    if target.resolve() == source.resolve():
        raise ValueError(f"{target} holds the label files themselves: pack into another folder, or they count twice")
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob(f"{name}-[0-9][0-9][0-9].npz"):
        old.unlink()
    pending, size, number = [], OVERHEAD, 0

    def write():
        path = target / f"{name}-{number:03d}.npz"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **{key: np.concatenate([p[key] for p in pending]) for key in pending[0]})
        os.replace(temporary, path)
        return path, int(sum(p["frames"][0] for p in pending))

    for path in files:
        arrays = _arrays(path)
        if arrays is None:
            continue
        # Compression makes numbers no larger. Text is padded to the longest before, and to less than this after.
        bytes_of = sum(2 * len(str(a[0])) if a.dtype.kind == "U" else a.nbytes for a in arrays.values())
        if pending and size + bytes_of > most_bytes:
            yield write()
            pending, size, number = [], OVERHEAD, number + 1
        pending.append(arrays)
        size += bytes_of
    if pending:
        yield write()


def shard_entries(data: dict[str, np.ndarray]) -> Iterator[dict]:
    """The trajectories of a shard's arrays, each as the keyword arguments of `dataset.Trajectory`."""
    atom = frame = cell = grid = plain = force = 0
    for k in range(len(data["frames"])):
        atoms, frames = int(data["atoms"][k]), int(data["frames"][k])
        rows, shape = atoms * frames, (frames, atoms, 3)
        if data["exact"][k]:
            positions = data["grid"][grid : grid + rows].astype(np.float32) * np.float32(GRID)
            grid += rows
        else:
            positions = data["positions"][plain : plain + rows]
            plain += rows
        yield {
            "system": str(data["system"][k]),
            "family": str(data["family"][k]),
            "split": str(data["split"][k]),
            "temperature": int(data["temperature"][k]),
            "numbers": data["numbers"][atom : atom + atoms].astype(np.int16),
            "positions": positions.reshape(shape),
            "energies": data["energies"][frame : frame + frames],
            "forces": data["forces"][force : force + rows].astype(np.float32).reshape(shape),
            "cell": data["cell"][cell] if data["periodic"][k] else None,
        }
        atom, frame, force, cell = atom + atoms, frame + frames, force + rows, cell + int(data["periodic"][k])
