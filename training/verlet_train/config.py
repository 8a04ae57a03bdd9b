"""The TOML file that drives every command, read once into typed values."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from .problem import InputError
from .teacher import GFN2, Teacher


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
class Molecules:
    """The molecules that the entries below draw from.

    In a file `.npz` that `verlet-train molecules` makes, or in any file that ASE reads (extended XYZ, SDF, PDB, …).
    """

    file: str  # relative to the TOML file's folder
    smiles: list[str] = field(default_factory=list)  # what `verlet-train molecules` makes, instead of its enumeration
    conformers: int = 4  # of a molecule, at most
    test_fraction: float = 0.1  # of the enumerated molecules, by a hash of SMILES and seed; of the others' trajectories
    reserve_fraction: float = 0.0  # of the enumerated molecules, on top of them: for `verlet-train explore`
    # Likewise, on top of those, with one conformer each: for `[[thermal]]` with molecules = "further".
    further_fraction: float = 0.0


@dataclass(frozen=True)
class Thermal:
    """Langevin dynamics of every molecule alone: thermal frames.

    Of the molecules that everything else draws from ("main"), or of those that come on top of them ("further"), which
    are all for training.
    """

    temperatures: list[int]  # K, taken in turn
    runs: int  # per molecule, each from a conformer of its own while there are any
    frames: int  # kept per run
    every: int = 3  # steps between kept frames
    settle: int = 15  # steps before the first
    # Keep the frames most unlike each other of all the run's steps, which are labelled in any case; not in the test.
    diverse: bool = False
    molecules: str = "main"

    def __post_init__(self):
        if self.molecules not in ("main", "further"):
            raise InputError(f'[[thermal]] molecules = {self.molecules!r} is unknown: write "main" or "further"')


@dataclass(frozen=True)
class Strained:
    """Every molecule rattled, half the frames with one bond stretched or squeezed too, the smaller side moving."""

    runs: int  # per molecule
    frames: int
    rattle: list[float]  # Å, smallest and largest standard deviation
    stretch: list[float]  # factors of the bond's length, smallest and largest


@dataclass(frozen=True)
class Pairs:
    """Two molecules put side by side at random, stacked and hydrogen-bonded, at many distances: walls and tails."""

    pairs: int
    frames: int  # per pair
    walls: float = 0.2  # share of frames placed by covalent radii, within …
    covalent: list[float] = field(default_factory=lambda: [0.6, 1.3])  # … these multiples of the radii's sum
    contact: list[float] = field(default_factory=lambda: [0.7, 1.8])  # multiples of van der Waals radii: the others
    rattle: float = 0.03  # Å
    largest: int = 40  # atoms of either molecule


@dataclass(frozen=True)
class Clusters:
    """Langevin dynamics of solutes from the structures file with water around them, from touching starts."""

    solutes: int  # how many; 0: water alone
    waters: list[int]  # fewest and most
    temperatures: list[int]  # K, taken in turn
    runs: int  # in all, each of other molecules
    frames: int
    family: str  # the name of the class in tables: "dimers", "water clusters", …
    every: int = 4
    settle: int = 20
    test_fraction: float = 0.1  # of clusters of water alone; others are tested with test molecules
    largest: int = 40  # atoms of a solute


@dataclass(frozen=True)
class Explore:
    """Dynamics by the engine under a student, of molecules in reserve: see explore.py. Its steps are 0.5 fs."""

    molecules: int = 200  # in a round, each once; other ones in the next, while there are any
    temperatures: list[int] = field(default_factory=lambda: [300, 450, 600, 800])  # K, taken in turn
    steps: int = 4000
    every: int = 40  # steps between the frames of which some are chosen
    frames: int = 8  # chosen per molecule


@dataclass(frozen=True)
class Network:
    features: int = 128
    interactions: int = 3
    gaussians: int = 20
    bessel: int = 0  # so many Bessel functions in the Gaussians' place; 0: Gaussians
    cutoff: float = 5.0  # Å
    readout: int = 64
    # ε of √(|V μ|² + ε) in the update blocks. At 1e-8 the norm turns within a time step where a vector passes near
    # zero, and the energy of a run walks; at 1e-2 it walks several times less.
    norm_epsilon: float = 1e-8

    def radial_basis(self) -> dict:
        """The radial functions as a model file describes them."""
        if self.bessel:
            return {"kind": "bessel", "count": self.bessel}
        return {"kind": "gaussian", "count": self.gaussians, "start": 0.0, "end": self.cutoff}


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
class Repulsion:
    """Asks the engine for a short-range repulsion, where two atoms are nearer than the training ever saw them.

    For each pair of elements it is whole below `onset` times the shortest trained distance, and nothing beyond that
    distance, so that it changes no energy of the training's own frames.
    """

    kind: str = "zbl"  # Ziegler, Biersack and Littmark's screened repulsion of nuclei
    onset: float = 0.8

    def __post_init__(self):
        if self.kind != "zbl":
            raise InputError(f"[repulsion] kind = {self.kind!r} is unknown: the engine has 'zbl'")
        if not 0 < self.onset < 1:
            raise InputError(f"[repulsion] onset = {self.onset} is not between 0 and 1")


@dataclass(frozen=True)
class Config:
    name: str
    title: str
    seed: int
    data: Path
    teacher: Teacher
    elements: list[int]
    network: Network
    training: Training
    trajectories: list[Trajectories]
    distortions: list[Distortions]
    contacts: list[Contacts]
    boxes: list[Boxes]
    sampled: list[Sampled]
    molecules: Molecules | None
    thermal: list[Thermal]
    strained: list[Strained]
    pairs: list[Pairs]
    clusters: list[Clusters]
    explore: Explore | None
    repulsion: Repulsion | None

    def structures(self) -> Path:
        """The structures file. Raises InputError where the configuration has no [molecules]."""
        if self.molecules is None:
            raise InputError("the configuration has no [molecules]: say which `file` holds the structures")
        return Path(self.molecules.file)


def _typed(kind, table: dict, where: str):
    known = {f.name for f in fields(kind)}
    if unknown := set(table) - known:
        raise InputError(f"[{where}]: unknown key {sorted(unknown)}; known are {sorted(known)}")
    try:
        return kind(**table)
    except TypeError as error:
        raise InputError(f"[{where}]: {error}") from None


def read_config(path: str | Path) -> Config:
    """Reads `path`; `data` and `molecules.file` in it are relative to the file's own folder."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: {error}") from None
    lists = {
        "trajectories": Trajectories,
        "distortions": Distortions,
        "contacts": Contacts,
        "boxes": Boxes,
        "sampled": Sampled,
        "thermal": Thermal,
        "strained": Strained,
        "pairs": Pairs,
        "clusters": Clusters,
    }
    for key, kind in lists.items():
        table[key] = [_typed(kind, entry, key) for entry in table.get(key, [])]
    table["molecules"] = _typed(Molecules, table["molecules"], "molecules") if "molecules" in table else None
    if table["molecules"] is not None:
        file = (path.parent / table["molecules"].file).resolve()
        table["molecules"] = replace(table["molecules"], file=str(file))
    teacher = _typed(Teacher, table["teacher"], "teacher") if "teacher" in table else GFN2
    table["teacher"] = replace(teacher, folder=str(path.parent.resolve()))
    table["explore"] = _typed(Explore, table["explore"], "explore") if "explore" in table else None
    table["repulsion"] = _typed(Repulsion, table["repulsion"], "repulsion") if "repulsion" in table else None
    table["network"] = _typed(Network, table.get("network", {}), "network")
    table["training"] = _typed(Training, table.get("training", {}), "training")
    table["data"] = (path.parent / table["data"]).resolve()
    return _typed(Config, table, "top level")
