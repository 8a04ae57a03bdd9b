"""The TOML file that drives every command, read once into typed values."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True)
class Trajectories:
    """Langevin dynamics of the teacher itself, from packed starts."""

    system: str
    molecules: dict[str, int]
    temperatures: list[int]  # K
    runs: int  # per temperature, each with its own start and seed
    frames: int  # kept per run
    split: str = "train"
    density: float = 0.5  # g/cm³ of the fresh packing
    spacing_fs: float = 10.0  # between kept frames
    equilibration_fs: float = 100.0


@dataclass(frozen=True)
class Distortions:
    """A molecule or packed cluster, relaxed, then rattled and with single bonds stretched or squeezed."""

    system: str
    molecules: dict[str, int]
    runs: int
    frames: int
    rattle: list[float]  # Å, smallest and largest standard deviation
    stretch: list[float]  # factors, smallest and largest, for one bond a frame
    split: str = "train"


@dataclass(frozen=True)
class Contacts:
    """Two rattled molecules at random orientation, their centres of mass a random distance apart."""

    system: str
    pair: list[str]
    runs: int
    frames: int
    distance: list[float]  # Å, smallest and largest
    rattle: float = 0.03  # Å
    split: str = "train"


@dataclass(frozen=True)
class Boxes:
    """Periodic boxes as packed, rattled: no dynamics of the teacher, because a periodic label costs seconds."""

    system: str
    molecules: dict[str, int]
    densities: list[float]  # g/cm³, smallest and largest
    runs: int
    frames: int
    rattle: float = 0.03  # Å
    split: str = "train"


@dataclass(frozen=True)
class Sampled:
    """Frames that a trained student chose by its own dynamics (many runs at once), labelled by the teacher."""

    system: str
    molecules: dict[str, int]
    temperatures: list[int]
    runs: int  # per temperature (and density)
    frames: int
    spacing_fs: float
    equilibration_fs: float
    densities: list[float] = field(default_factory=list)  # g/cm³ of periodic boxes; none: an open cluster
    round: int = 1  # which `generate --student --round` makes them
    split: str = "train"


@dataclass(frozen=True)
class Network:
    features: int = 128
    interactions: int = 3
    gaussians: int = 20
    cutoff: float = 5.0  # Å
    readout: int = 64


@dataclass(frozen=True)
class Training:
    steps: int = 100_000
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warmup_steps: int = 500
    batch_frames: int = 96  # at most, and no more than fit …
    batch_pairs: int = 12_288  # … into so many directed pairs
    batch_atoms: int = 1_536  # … and so many atoms
    box_repeats: int = 1  # how often an epoch uses each periodic frame; other frames it uses once
    energy_weight: float = 4.0  # of the energy error per atom against the force error
    force_scale: float = 0.05  # eV/Å, where the force loss turns from quadratic to linear
    energy_scale: float = 0.002  # eV per atom, likewise
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    largest_force: float = 20.0  # eV/Å; frames beyond it are left out


@dataclass(frozen=True)
class Config:
    name: str
    title: str
    seed: int
    data: Path
    method: str  # the teacher: a method of tblite
    elements: list[int]
    network: Network
    training: Training
    trajectories: list[Trajectories]
    distortions: list[Distortions]
    contacts: list[Contacts]
    boxes: list[Boxes]
    sampled: list[Sampled]


def _typed(kind, table: dict, where: str):
    known = {f.name for f in fields(kind)}
    if unknown := set(table) - known:
        raise ValueError(f"[{where}]: unknown key {sorted(unknown)}; known are {sorted(known)}")
    try:
        return kind(**table)
    except TypeError as error:
        raise ValueError(f"[{where}]: {error}") from None


def read_config(path: str | Path) -> Config:
    """Reads `path`; `data` in it is relative to the file's own folder."""
    path = Path(path)
    table = tomllib.loads(path.read_text())
    lists = {
        "trajectories": Trajectories,
        "distortions": Distortions,
        "contacts": Contacts,
        "boxes": Boxes,
        "sampled": Sampled,
    }
    for key, kind in lists.items():
        table[key] = [_typed(kind, entry, key) for entry in table.get(key, [])]
    table["network"] = _typed(Network, table.get("network", {}), "network")
    table["training"] = _typed(Training, table.get("training", {}), "training")
    table["data"] = (path.parent / table["data"]).resolve()
    return _typed(Config, table, "top level")
