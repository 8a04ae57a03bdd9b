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
MODEL = ROOT / "inputs/models/ethanol-water-v1.safetensors"
STRUCTURES = ROOT / "inputs/structures"
TIMESTEP = 0.5  # fs
SHORT = 1000  # steps of the runs that are made in float64 as well


class System(NamedTuple):
    """What is run."""

    structure: str
    kelvin: int
    #: Steps of Langevin dynamics before, at constant energy after.
    equilibration: int
    steps: int
    #: Largest drift that passes, with two standard errors, kT/ns per degree of freedom.
    bound: float


#: Hot clusters evaporate: that of eight waters is kept at 200 K.
SYSTEMS = {
    "ethanol": System("ethanol.xyz", 300, 100_000, 2_000_000, 1e-3),
    "8 waters": System("water8.xyz", 200, 100_000, 200_000, 1e-2),
    "64 waters, periodic": System("water64.xyz", 300, 40_000, 200_000, 1e-2),
}
#: Rows of the energy log of a long run.
ROWS = 10_000
CLOSE_STEPS, CLOSE = 100, 1e-3  # steps, Å
SAME_FLUCTUATION = 0.1

TEXT = f"""
Each system is first held at its temperature by Langevin dynamics, so that no energy is still on its way from one
vibration to another: what velocity Verlet conserves differs from the energy by a term in Δt² that depends on which
vibrations are excited. Then it runs at constant energy with Δt = {TIMESTEP} fs.

**Drift.** The slope of a straight line through the means of 20 blocks of the energy, with its standard error; the check
is its size plus two errors, so that a run that proves nothing does not pass. Control: the same energies with twice the
bound added.

**Beside float64.** The first {SHORT} steps are made once more on the CPU with the network in float64 and exact radial
filters. Paths of a chaotic system part sooner or later, so positions are compared after {CLOSE_STEPS} steps; over all
{SHORT}, the standard deviations of the two energies must agree within {SAME_FLUCTUATION:.0%}. Control: a time step of
1 fs instead of {TIMESTEP} fs for one of the two.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="make the runs; needs nothing but Python")
    running.add_argument("--engine", type=Path, default=ROOT / "target/release/verlet", help="the binary to judge")
    running.add_argument("--backend", default="cuda", choices=["cuda", "cpu"], help="the device to judge")
    running.add_argument("--into", type=Path, required=True, help="folder of the runs, new")
    running.add_argument("--part", type=float, default=1.0, help="this part of all long runs' steps, to try it")
    running.set_defaults(call=run)
    judging = commands.add_parser("judge", help="fit, compare, write the page")
    judging.add_argument("runs", type=Path, help="folder of the runs")
    judging.add_argument("--results", type=Path, default=ROOT / "validation/results", help="folder of the page")
    judging.set_defaults(call=judge)
    options = parser.parse_args()
    return options.call(options)


def run(options: argparse.Namespace) -> int:
    options.into.mkdir(parents=True)
    machine = run_one(options, "evaluation", ["info", "--devices"]) if options.backend == "cuda" else ""
    git = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    about = {
        "engine": run_one(options, "version", ["--version"]).strip(),
        "commit": git.stdout.strip() or os.environ.get("VERLET_COMMIT", "unknown"),
        "date": datetime.date.today().isoformat(),
        "backend": options.backend,
        "device": machine,
        "part": options.part,
    }
    for name, system in SYSTEMS.items():
        folder = options.into / name.split(",")[0].replace(" ", "-")
        long_steps = int(system.steps * options.part)
        dynamics = {"timestep": f"{TIMESTEP} fs", "steps": int(system.equilibration * options.part), "seed": 1}
        dynamics |= {"ensemble": "langevin", "temperature": system.kelvin, "friction": "5 1/ps"}
        start = STRUCTURES / system.structure
        log = {"output.energy": {"interval": max(1, dynamics["steps"] // ROWS)}}
        timed(options, folder / "equilibration", start, 1, dynamics, log | extra(dynamics["steps"]))
        start = folder / "equilibration/start.xyz"
        still = {"timestep": f"{TIMESTEP} fs", "velocities": "file", "seed": 1}
        log = {"output.energy": {"interval": max(1, long_steps // ROWS)}}
        log["output.trajectory"] = {"interval": max(1, long_steps // 20), "precision": "f64"}
        about[f"{name}: seconds"] = timed(options, folder / "long", start, 2, still | {"steps": long_steps}, log)
        log = {"output.energy": {"interval": 1}, "output.trajectory": {"interval": 10, "precision": "f64"}}
        exact = {"backend": {"device": "cpu", "precision": "f64", "filters": "direct"}}
        timed(options, folder / "short", start, 2, still | {"steps": SHORT}, log)
        timed(options, folder / "float64", start, 2, still | {"steps": SHORT}, log | exact)
        coarse = still | {"timestep": f"{2 * TIMESTEP} fs", "steps": SHORT // 2}
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
    from energy import drift_of
    from engine import Run
    from page import Check, Section, plt, write

    about = json.loads((options.runs / "about.json").read_text())
    if about["part"] != 1:
        print(f"{options.runs}: only {about['part']} of the steps were made: no page, only numbers", file=sys.stderr)
    section = Section("stability", "Long runs at constant energy", TEXT)
    figure, axes = plt.subplots(1, len(SYSTEMS), figsize=(9, 3))
    for axis, (name, system) in zip(axes, SYSTEMS.items(), strict=True):
        folder = options.runs / name.split(",")[0].replace(" ", "-")
        long, short, exact, coarse = (Run(folder / what) for what in ("long", "short", "float64", "coarse"))
        slope, error, kelvin = drift_of(long)
        unit = "kT/ns/dof, with two errors"
        steps = int(long.log["step"][-1])
        what = f"{name}: drift over {steps:,} steps"
        section.checks.append(Check(what, abs(slope) + 2 * error, system.bound, unit))
        added, error_added, _ = drift_of(long, added=2 * system.bound)
        what = f"{name}: with {2 * system.bound:g} kT/ns/dof added"
        section.checks.append(Check(what, abs(added) + 2 * error_added, system.bound, unit, control=True))

        moved = np.abs(short.frames("position") - exact.frames("position")).max(axis=(1, 2))
        close = moved[CLOSE_STEPS // 10]
        section.checks.append(Check(f"{name}: positions after {CLOSE_STEPS} steps", close, CLOSE, "Å from float64"))
        ours, theirs, wide = (run.log["conserved"].std() for run in (short, exact, coarse))
        what = f"{name}: fluctuation over {SHORT} steps"
        section.checks.append(Check(what, abs(ours / theirs - 1), SAME_FLUCTUATION, "relative to float64's"))
        what = f"{name}: the same at {2 * TIMESTEP:g} fs"
        section.checks.append(Check(what, abs(wide / theirs - 1), SAME_FLUCTUATION, "relative", control=True))

        energy, atoms = long.log["conserved"] - long.log["conserved"][0], len(long.masses)
        first, last = (run.log["conserved"][0] for run in (short, exact))
        section.notes.append(
            f"{name}, {atoms} atoms, {long.log['time'][-1]:g} ps at a mean of {kelvin:.0f} K: drift {slope:+.2e} ± "
            f"{error:.1e} kT/ns/dof; the energy stayed within {1e3 * np.abs(energy).max() / atoms:.3g} meV an atom of its "
            f"first value, standard deviation {1e3 * energy.std() / atoms:.2g}. The first energy differs from float64's by "
            f"{abs(first - last) / atoms:.1e} eV an atom; after {SHORT} steps the paths were {moved[-1]:.1e} Å apart."
        )
        section.numbers[name] = {"drift": slope, "error": error, "kelvin": kelvin, "apart (Å), every 10 steps": list(moved)}
        thin = slice(None, None, max(1, len(energy) // 500))
        axis.plot(long.log["time"][thin], 1e3 * energy[thin] / atoms, lw=0.4)
        axis.set(title=name, xlabel="time (ps)")
    axes[0].set(ylabel="energy − first (meV/atom)")
    section.figures["stability"] = figure
    for check in section.checks:
        print(check.row())
    print(*section.notes, sep="\n")
    if about["part"] == 1:
        kind = "gpu" if about["backend"] == "cuda" else "cpu"
        page = options.results / f"{about['date']}-{kind}-stability.md"
        about["device"] = " ".join(about["device"].split())
        write(page, f"Stability on {about['date']}", {key: str(value) for key, value in about.items()}, [section])
        print(f"{'PASS' if section.passed else 'FAIL'}: {page}")
    return 0 if section.passed else 1


if __name__ == "__main__":
    sys.exit(main())
