"""Long runs at constant energy: do they last, and does the energy stay? Two commands, for the machine with the GPU and
for one with Matplotlib:

    python3 validation/stability.py run --engine target/release/verlet --backend cuda --into runs/stability
    .tools/validation-venv/bin/python validation/stability.py judge runs/stability
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "inputs/models/ethanol-water-v2.safetensors"
STRUCTURES = ROOT / "inputs/structures"
SHORT = 1000  # steps of the runs that are made in float64 as well


class System(NamedTuple):
    """What is run."""

    structure: str
    kelvin: int
    timestep: float  # fs
    #: Steps of Langevin dynamics before, at constant energy after.
    equilibration: int
    steps: int
    #: Largest drift that passes, with two standard errors, kT/ns per degree of freedom; none is judged without it.
    bound: float | None


#: Hot clusters evaporate: that of eight waters is kept at 200 K.
SYSTEMS = {
    "ethanol at 0.25 fs": System("ethanol.xyz", 300, 0.25, 200_000, 4_000_000, 1e-3),
    "ethanol at 0.5 fs": System("ethanol.xyz", 300, 0.5, 100_000, 2_000_000, None),
    "8 waters": System("water8.xyz", 200, 0.5, 100_000, 200_000, 1e-2),
    "64 waters, periodic": System("water64.xyz", 300, 0.5, 40_000, 200_000, 1e-2),
}
#: The same at two time steps, and the part of the coarse one's walk that the fine one's may be.
FINE, COARSE, STILLER = "ethanol at 0.25 fs", "ethanol at 0.5 fs", 0.2
#: Rows of the energy log of a long run, and its frames.
ROWS, FRAMES = 10_000, 2_000
CLOSE_STEPS, CLOSE = 100, 1e-3  # steps, Å
SAME_FLUCTUATION = 0.1
#: The shadow energy keeps at most this of the energy's fluctuation from frame to frame.
QUIET = 0.5

TEXT = f"""
Each system is first held at its temperature by Langevin dynamics; then it runs at constant energy, with Δt = 0.5 fs where its name
says nothing else.

**Drift.** What velocity Verlet conserves is not the energy H but the shadow energy

H̃ = H + Δt² (vᵀ U″ v / 12 − Σ |F|²/m / 24) + O(Δt⁴)

(Engle, Skeel and Drees, J. Comput. Phys. 206, 432, 2005). The term in Δt² depends on which vibrations are excited; in a
molecule alone that changes over nanoseconds, and hides a drift. So the slope is that of H̃: a straight line through the
means of 20 blocks of some {FRAMES} frames. F and U″ v = −dF/dx·v, by a central difference, are the engine's own in float64 at
those frames. What rounded forces do to H̃ adds up at random, and so does what no power of Δt says, where the network bends within a
step: it walks. The slope's standard error is that of a walk, from the steps between blocks. The check is the slope's size plus two
errors, so that a run that proves nothing does not pass; what H alone gives is said below the table. Controls: the same H̃ with twice
the bound added; and H̃ with the term taken twice, whose fluctuation from frame to frame must not fall as that of H̃ does.

**Time step or forces?** A hot molecule's walk at 0.5 fs is wider than any drift that we would bear. If the engine's forces made it, it
would be hardly less at half the time step; if the time step does, next to nothing is left. So steps of H̃ between blocks of equal time must
be at 0.25 fs at most {STILLER:g} of what they are at 0.5 fs, and the drift is judged at 0.25 fs.

**Beside float64.** The first {SHORT} steps are made once more on the CPU with the network in float64 and exact radial
filters. Paths of a chaotic system part sooner or later, so positions are compared after {CLOSE_STEPS} steps; over all
{SHORT}, the standard deviations of the two energies must agree within {SAME_FLUCTUATION:.0%}. Control: twice the time step for
one of the two.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="make the runs; needs nothing but Python")
    running.add_argument("--engine", type=Path, default=ROOT / "target/release/verlet", help="the binary to judge")
    running.add_argument("--backend", default="cuda", choices=["cuda", "cpu"], help="the device to judge")
    running.add_argument("--into", type=Path, required=True, help="folder of the runs, new")
    running.add_argument("--systems", nargs="+", choices=[slug(name) for name in SYSTEMS], help="some of the systems")
    running.add_argument("--part", type=float, default=1.0, help="this part of all long runs' steps, to try it")
    running.set_defaults(call=run)
    judging = commands.add_parser("judge", help="fit, compare, write the page")
    judging.add_argument("runs", type=Path, help="folder of the runs")
    judging.add_argument("--engine", type=Path, default=ROOT / "target/release/verlet", help="computes forces in float64")
    judging.add_argument("--results", type=Path, default=ROOT / "validation/results", help="folder of the page")
    judging.set_defaults(call=judge)
    options = parser.parse_args()
    return options.call(options)


def slug(name: str) -> str:
    """The folder of a system's runs."""
    return name.split(",")[0].replace(" ", "-")


def run(options: argparse.Namespace) -> int:
    options.into.mkdir(parents=True)
    machine = run_one(options, "evaluation", ["info", "--devices"]) if options.backend == "cuda" else ""
    git = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    about = {
        "engine": run_one(options, "version", ["--version"]).strip(),
        "commit": os.environ.get("VERLET_COMMIT") or git.stdout.strip() or "unknown",
        "date": datetime.date.today().isoformat(),
        "backend": options.backend,
        "device": machine,
        "part": options.part,
    }
    for name, system in SYSTEMS.items():
        if options.systems and slug(name) not in options.systems:
            continue
        folder = options.into / slug(name)
        long_steps = int(system.steps * options.part)
        dynamics = {"timestep": f"{system.timestep} fs", "steps": int(system.equilibration * options.part), "seed": 1}
        dynamics |= {"ensemble": "langevin", "temperature": system.kelvin, "friction": "5 1/ps"}
        start = STRUCTURES / system.structure
        log = {"output.energy": {"interval": max(1, dynamics["steps"] // ROWS)}}
        log["output.trajectory"] = {"interval": dynamics["steps"]}
        timed(options, folder / "equilibration", start, 1, dynamics, log | extra(dynamics["steps"]))
        start = folder / "equilibration/start.xyz"
        still = {"timestep": f"{system.timestep} fs", "velocities": "file", "seed": 1}
        log = {"output.energy": {"interval": max(1, long_steps // ROWS)}}
        log["output.trajectory"] = {"interval": max(1, long_steps // FRAMES), "precision": "f64"}
        about[f"{name}: seconds"] = timed(options, folder / "long", start, 2, still | {"steps": long_steps}, log)
        log = {"output.energy": {"interval": 1}, "output.trajectory": {"interval": 10, "precision": "f64"}}
        exact = {"backend": {"device": "cpu", "precision": "f64", "filters": "direct"}}
        timed(options, folder / "short", start, 2, still | {"steps": SHORT}, log)
        timed(options, folder / "float64", start, 2, still | {"steps": SHORT}, log | exact)
        coarse = still | {"timestep": f"{2 * system.timestep} fs", "steps": SHORT // 2}
        timed(options, folder / "coarse", start, 2, coarse, log)
        (options.into / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    return 0


def extra(steps: int) -> dict[str, object]:
    """The last frame with every digit and with velocities, as the second of a file."""
    return {"[output.extra]": {"file": "start.xyz", "interval": steps, "velocities": True}}


def timed(options: argparse.Namespace, folder: Path, structure: Path, frame: int, dynamics: dict, more: dict) -> float:
    """Runs into `folder`; returns seconds."""
    folder.parent.mkdir(exist_ok=True)
    tables = {"system": {"structure": str(structure.resolve()), "frame": frame}, "model": {"file": str(MODEL)}}
    # The bounds are ours, not the program's.
    tables |= {"dynamics": dynamics, "verdict": {"max_drift": 1e9, "max_excursion": 1e3}, **more}
    # What JSON writes of numbers, words and truth values is TOML as well.
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )
    given = folder.with_suffix(".toml")
    given.write_text(text)
    began = time.monotonic()
    device = [] if "backend" in more else ["--backend", options.backend]
    run_one(options, str(folder), ["run", str(given), "--output", str(folder), *device])
    seconds = time.monotonic() - began
    print(f"{folder}: {dynamics['steps']} steps in {seconds:.1f} s", flush=True)
    return round(seconds, 1)


def run_one(options: argparse.Namespace, what: str, arguments: list[str]) -> str:
    done = subprocess.run([str(options.engine.resolve()), *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{what} failed: {done.stderr.strip()}")
    return done.stdout


def judge(options: argparse.Namespace) -> int:
    # Only here: the machine with the GPU need not have them.
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # it greets whoever imports it
    import numpy as np
    from blocks import in_blocks, walk
    from blocks import wandering_drift as drift
    from energy import drift_of
    from engine import Run
    from page import Check, Section, plt, write
    from shadow import shadow

    about = json.loads((options.runs / "about.json").read_text())
    section = Section("stability", "Long runs at constant energy", TEXT)
    systems = {name: system for name, system in SYSTEMS.items() if (options.runs / slug(name)).exists()}
    figure, axes = plt.subplots(1, len(systems), figsize=(3 * len(systems), 3), squeeze=False)
    walks = {}
    for axis, (name, system) in zip(axes[0], systems.items(), strict=True):
        folder = options.runs / slug(name)
        long, short, exact, coarse = (Run(folder / what) for what in ("long", "short", "float64", "coarse"))
        print(f"{name}: forces of the frames in float64 …", flush=True)
        time, energy, term = shadow(options.engine, MODEL, long, system.timestep)
        kelvin = long.log["temperature"].mean()
        freedom = 3 * len(long.masses) - 3
        slope, error = drift(time, energy + term, kelvin, freedom)
        walks[name] = walk(time, energy + term)
        if system.bound is not None:
            unit = "kT/ns/dof, with two errors"
            steps = int(long.log["step"][-1])
            section.checks.append(Check(f"{name}: drift over {steps:,} steps", abs(slope) + 2 * error, system.bound, unit))
            added, error_added = drift(time, energy + term, kelvin, freedom, added=2 * system.bound)
            what = f"{name}: with {2 * system.bound:g} kT/ns/dof added"
            section.checks.append(Check(what, abs(added) + 2 * error_added, system.bound, unit, control=True))
        # From frame to frame: over the whole run a walk of the energy itself would count as well.
        quiet, twice = (np.std(np.diff(energy + n * term)) / np.std(np.diff(energy)) for n in (1, 2))
        what, unit = f"{name}: fluctuation of H̃ from frame to frame", "of that of H"
        section.checks.append(Check(what, quiet, QUIET, unit))
        section.checks.append(Check(f"{what} with the term taken twice", twice, QUIET, unit, control=True))

        moved = np.abs(short.frames("position") - exact.frames("position")).max(axis=(1, 2))
        close = moved[CLOSE_STEPS // 10]
        section.checks.append(Check(f"{name}: positions after {CLOSE_STEPS} steps", close, CLOSE, "Å from float64"))
        ours, theirs, wide = (run.log["conserved"].std() for run in (short, exact, coarse))
        what = f"{name}: fluctuation over {SHORT} steps"
        section.checks.append(Check(what, abs(ours / theirs - 1), SAME_FLUCTUATION, "relative to float64's"))
        what = f"{name}: the same at {2 * system.timestep:g} fs"
        section.checks.append(Check(what, abs(wide / theirs - 1), SAME_FLUCTUATION, "relative", control=True))

        plain, plain_error, _ = drift_of(long)
        atoms = len(long.masses)
        moves = long.log["conserved"] - long.log["conserved"][0]
        first, last = (run.log["conserved"][0] for run in (short, exact))
        section.notes.append(
            f"{name}, {atoms} atoms, {long.log['time'][-1]:g} ps at a mean of {kelvin:.0f} K: H̃ drifts by {slope:+.2e} ± "
            f"{error:.1e} kT/ns/dof, H by {plain:+.2e} ± {plain_error:.1e}. H stayed within "
            f"{1e3 * np.abs(moves).max() / atoms:.3g} meV an atom of its first value; standard deviations "
            f"{1e3 * energy.std() / atoms:.2g} (H) and {1e3 * (energy + term).std() / atoms:.2g} (H̃) meV an atom; H̃ walks by "
            f"{1e6 * walks[name]:.2g} µeV in a picosecond, and with the root of the time. The first "
            f"energy differs from float64's by {abs(first - last) / atoms:.1e} eV an atom; after {SHORT} steps the paths "
            f"were {moved[-1]:.1e} Å apart."
        )
        section.numbers[name] = {
            "kelvin": kelvin,
            "drift of H̃ (kT/ns/dof), its error": [slope, error],
            "drift of H (kT/ns/dof), its error": [plain, plain_error],
            "walk of H̃ (eV in one ps)": walks[name],
            "H̃ − the first, means of 20 blocks (eV)": in_blocks(time, energy + term)[1],
            "apart (Å), every 10 steps": list(moved),
        }
        thin = slice(None, None, max(1, len(time) // 500))
        for values, label in ((energy, "H"), (energy + term, "H̃")):
            axis.plot(time[thin], 1e3 * (values - values.mean())[thin] / atoms, lw=0.5, label=label)
        axis.set(title=name, xlabel="time (ps)")
    if FINE in walks and COARSE in walks:
        ratio = walks[FINE] / walks[COARSE]
        section.checks.append(Check(f"walk of H̃: {FINE} beside {COARSE}", ratio, STILLER, "of it"))
    axes[0][0].set(ylabel="energy − mean (meV/atom)")
    axes[0][0].legend()
    section.figures["stability"] = figure
    for check in section.checks:
        print(check.row())
    print(*section.notes, sep="\n")
    if about["part"] != 1 or len(systems) != len(SYSTEMS):
        print("A part of the runs: no page.", file=sys.stderr)
        return 1
    kind = "gpu" if about["backend"] == "cuda" else "cpu"
    page = options.results / f"{about['date']}-{kind}-stability.md"
    about["device"] = ", ".join(" ".join(line.split()) for line in about["device"].splitlines())
    write(page, f"Stability on {about['date']}", {key: str(value) for key, value in about.items()}, [section])
    print(f"{'PASS' if section.passed else 'FAIL'}: {page}")
    return 0 if section.passed else 1


if __name__ == "__main__":
    sys.exit(main())
