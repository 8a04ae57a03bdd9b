"""From a run of organic.py to its numbers, and the few frames that are kept for the teacher."""

from __future__ import annotations

import liquid
import molecules
import numpy as np
from blocks import drift, mean_of_blocks
from engine import Run

KJ_PER_MOL = 1 / 96.48533212  # eV
MASS_VELOCITY2 = 103.642697  # eV in one u Å²/fs²
#: Largest drift at constant energy that passes, kT/ns per degree of freedom: that of energy.py and of `verlet run`.
DRIFT = 1.0
#: Left out at the beginning of a run in a heat bath: so much, ps, or this part of a shorter run.
WARM_UP = {"langevin": 5.0, "water": 10.0}
WARM_UP_PART = 0.2
KEPT = 12  # frames
POINTS = 100  # of a curve


def shadow(potential: np.ndarray, forces: np.ndarray, masses: np.ndarray, timestep: float) -> np.ndarray:
    """H̃ − H of velocity Verlet in eV at all steps but the first and last: Δt² (Ü / 12 + Σ |F|²/m / 24).

    With potential energies (eV) and forces (eV/Å, [step][atom][3]) of every step; the same as in stability.py, since
    along the path Ü = vᵀ U″ v − Σ |F|²/m.
    """
    bend = potential[2:] - 2 * potential[1:-1] + potential[:-2]
    squares = np.einsum("sac,sac,a->s", forces, forces, 1 / (MASS_VELOCITY2 * masses))[1:-1]
    return bend / 12 + timestep**2 * squares / 24


def constant_energy(run: Run, timestep: float) -> dict:
    log, masses = run.log, run.masses
    forces = run.frames("force") * KJ_PER_MOL
    term = shadow(log["potential"], forces, masses, timestep)
    time, energy = log["time"][1:-1], log["conserved"][1:-1]
    kelvin, freedom = float(log["temperature"].mean()), 3 * len(masses) - 3
    frames = run.frames("position")
    atoms = len(masses)
    return {
        "atoms": atoms,
        "steps": int(log["step"][-1]),
        "kelvin": kelvin,
        "hottest": float(log["temperature"].max()),
        "drift": drift(time, energy + term, kelvin, freedom),
        "drift added": drift(time, energy + term, kelvin, freedom, added=2 * DRIFT),
        "plain drift": drift(time, energy, kelvin, freedom),
        "fluctuation": [float(energy.std() / atoms), float((energy + term).std() / atoms)],
        "excursion": float(np.abs(log["conserved"] - log["conserved"][0]).max() / atoms),
        **extremes(molecules.bonds(numbers_of(run), frames)),
    }


def extremes(found: dict[str, np.ndarray]) -> dict[str, float]:
    longest = {name: float(found[name].max()) for name in ("stretch", "growth")}
    return longest | {"contact": float(found["contact"].min())}


def numbers_of(run: Run) -> np.ndarray:
    import h5py

    with h5py.File(run.trajectory) as file:
        return file["particles/trajectory/species"][:]


def bath(run: Run, kind: str, kelvin: float) -> tuple[dict, float]:
    """What both kinds of runs in a heat bath say of themselves; and when they count as warm, ps."""
    log = run.log
    warm = min(WARM_UP[kind], WARM_UP_PART * float(log["time"][-1]))
    mean, error = mean_of_blocks(log["temperature"][log["time"] >= warm])
    freedom = 3 * len(run.masses) - 3
    thin = slice(None, None, max(1, len(log["time"]) // (4 * POINTS)))
    return {
        "atoms": len(run.masses),
        "ps": float(log["time"][-1]),
        "left out (ps)": warm,
        "kelvin": [mean, error],
        "wanted": kelvin,
        "drift": drift(log["time"], log["conserved"], mean, freedom),
        "excursion": float(np.abs(log["conserved"] - log["conserved"][0]).max() / len(run.masses)),
        "curve": {
            "time": log["time"][thin].round(4).tolist(),
            "potential": ((log["potential"][thin] - log["potential"][0]) / len(run.masses)).round(7).tolist(),
        },
    }, warm


def kept(run: Run, warm: float, atoms: slice) -> dict[str, np.ndarray]:
    """Frames, spread over the warm part, with the engine's own energies (eV, of the whole run) and forces (eV/Å)."""
    import h5py

    with h5py.File(run.trajectory) as file:
        group = file["particles/trajectory"]
        times, steps = group["position/time"][:], group["position/step"][:]
    late = np.flatnonzero(times >= warm)
    rows = late[np.linspace(0, len(late) - 1, min(KEPT, len(late))).astype(int)]
    row_of = {int(step): row for row, step in enumerate(run.log["step"])}
    return {
        "numbers": numbers_of(run)[atoms],
        "positions": run.frames("position")[rows][:, atoms],
        "forces": run.frames("force")[rows][:, atoms] * KJ_PER_MOL,
        "energies": run.log["potential"][[row_of[int(step)] for step in steps[rows]]],
    }


def hot(run: Run, some: tuple[molecules.Molecule, ...], kelvin: float) -> tuple[dict, dict]:
    """A Langevin run of one molecule, or of several that are out of each other's reach."""
    found, warm = bath(run, "langevin", kelvin)
    positions = run.frames("position")
    ends = np.cumsum([len(one.numbers) for one in some])
    parts = [slice(end - len(one.numbers), end) for one, end in zip(some, ends, strict=True)]
    centres = np.stack([positions[:, part].mean(axis=1) for part in parts], axis=1)
    pairs = np.triu_indices(len(parts), k=1)
    gaps = np.linalg.norm(centres[:, pairs[0]] - centres[:, pairs[1]], axis=2)
    found["nearest molecules (Å)"] = float(gaps.min(initial=np.inf)) if len(some) > 1 else None
    found["molecules"], frames = {}, {}
    for one, part in zip(some, parts, strict=True):
        own = positions[:, part]
        held = molecules.bonds(one.numbers, own)
        wrong = molecules.bonds(one.numbers, molecules.spoiled(one.numbers, own))
        found["molecules"][one.name] = {
            "family": one.family,
            "atoms": len(one.numbers),
            **extremes(held),
            "spoiled": extremes(wrong),
            "curve": [float(block.max()) for block in np.array_split(held["stretch"], POINTS) if len(block)],
        }
        frames[f"langevin/{one.name}"] = kept(run, warm, part)
        # Energies of several molecules are one number: then only the forces of one can be compared.
        if len(some) > 1:
            del frames[f"langevin/{one.name}"]["energies"]
    return found, frames


def water(run: Run, kelvin: float, keep: bool) -> tuple[dict, dict]:
    found, warm = bath(run, "water", kelvin)
    positions = run.frames("position")
    count = positions.shape[1] // 3
    length = liquid.edge(count)
    triples = positions.reshape(len(positions), count, 3, 3)
    arms = np.linalg.norm(triples[:, :, 1:] - triples[:, :, :1], axis=3)
    late = run_times(run) >= warm
    oxygen = triples[late][:, :, 0]
    found |= {
        "molecules": count,
        "edge": length,
        "frames": len(oxygen),
        "longest O-H": float(arms.max()),
        "mean O-H": float(arms[late].mean()),
        "radial": liquid.structure(oxygen, length),
        "waves": liquid.waves(oxygen, length),
        "waves, torn": liquid.waves(liquid.torn(oxygen, length), length),
    }
    frames = {}
    if keep:
        frames["water"] = kept(run, warm, slice(None)) | {"cell": np.eye(3) * length}
    return found, frames


def run_times(run: Run) -> np.ndarray:
    import h5py

    with h5py.File(run.trajectory) as file:
        return file["particles/trajectory/position/time"][:]


def summary(result: dict) -> str:
    """A line for whoever watches."""
    if "failure" in result:
        return f"FAILED: {result['failure']}"
    words = [result["verdict"].split(":")[0]]
    if "steps" in result:
        words.append(f"drift {result['drift'][0]:+.2f} ± {result['drift'][1]:.2f} kT/ns/dof")
    if "ps" in result:
        words.append(f"{result['ps']:g} ps, {result['kelvin'][0]:.1f} ± {result['kelvin'][1]:.1f} K")
    if "radial" in result:
        shape = result["radial"]["shape"]
        words.append(f"g(r) {shape['first peak height'][0]:.2f} at {shape['first peak at'][0]:.2f} Å")
    return ", ".join(words)
