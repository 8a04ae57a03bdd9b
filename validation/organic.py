"""Does the force field for organic molecules run? Molecules it has not seen, hot ones, and liquid water. Three commands: the
first for the machine with the engine (Python with NumPy, SciPy and h5py), the second for one with tblite and ASE, the third
for one with Matplotlib:

    python3 validation/organic.py run --engine target/release/verlet --backend cuda --into runs/organic-gpu
    python3 validation/organic.py teacher runs/organic-gpu
    python3 validation/organic.py page runs/organic-gpu runs/organic-cpu --name h200

Nothing but the reduced numbers and a few frames is kept of a run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import liquid
import molecules
import numpy as np
import reduce
from engine import ENDED, ROOT, STRUCTURES, Engine, Failure, Run

TIMESTEP = 0.5  # fs
SHORT = 1000  # steps at constant energy
KELVIN, HOT = 300, 500
SPACING = 250.0  # Å between molecules that share a run: diffusion over 200 ps is some 20 Å
KINDS = ("nve", "langevin", "water")


class Task(NamedTuple):
    """A run to make."""

    kind: str
    name: str
    settings: dict[str, object]
    molecules: tuple[molecules.Molecule, ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="make the runs and reduce them")
    running.add_argument("--engine", type=Path, default=ROOT / "target/release/verlet", help="the binary to judge")
    running.add_argument("--backend", default="cuda", choices=["cuda", "cpu"], help="the device to judge")
    running.add_argument("--model", type=Path, default=ROOT / "inputs/models/organic-v2.safetensors", help="force field")
    running.add_argument("--into", type=Path, required=True, help="folder of the results; what is there already is kept")
    running.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="some of the runs")
    running.add_argument("--molecules", type=int, default=40, help="how many run at constant energy")
    running.add_argument("--hot", type=int, default=10, help=f"how many of them run at {HOT} K")
    running.add_argument("--time", type=float, default=200.0, help=f"ps at {HOT} K")
    running.add_argument("--waters", type=int, nargs="+", choices=[64, 512], default=[64, 512], help="sizes of the boxes")
    running.add_argument("--water-time", type=float, default=50.0, help="ps of liquid water")
    running.add_argument("--together", type=int, default=1, help="hot molecules in one run, out of each other's reach")
    running.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    running.add_argument("--threads", type=int, default=1, help="threads of a run on the CPU")
    running.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time; what was run counts")
    running.set_defaults(call=run)
    teaching = commands.add_parser("teacher", help="GFN2-xTB's energies and forces at the frames that were kept")
    teaching.add_argument("runs", type=Path, help="folder of the results")
    teaching.add_argument("--waters", type=int, default=6, help="frames of liquid water; each takes some 20 s")
    teaching.set_defaults(call=teach)
    paging = commands.add_parser("page", help="write the page")
    paging.add_argument("runs", type=Path, nargs="+", help="folders of the results")
    paging.add_argument("--name", default="organic", help="of the machine, for the page's name")
    paging.add_argument("--results", type=Path, default=ROOT / "validation/results", help="folder of the page")
    paging.set_defaults(call=page)
    options = parser.parse_args()
    return options.call(options)


def run(options: argparse.Namespace) -> int:
    until = time.monotonic() + options.seconds
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verlet-organic-") as scratch:
        engine = Engine(options.engine.resolve(), options.backend, Path(scratch))
        tasks = [task for kind in options.only for task in PLANS[kind](options, Path(scratch))]
        about, lock = machine(engine, options), threading.Lock()

        def work(task: Task) -> bool:
            if until - time.monotonic() < 1:
                print(f"{task.kind} {task.name}: no time left, not begun", flush=True)
                return False
            result, frames = perform(engine, task, until)
            with lock:
                keep(options.into, about, task, result, frames)
            print(f"{task.kind} {task.name}: {result['seconds']} s, {reduce.summary(result)}", flush=True)
            return "failure" not in result

        with ThreadPoolExecutor(options.jobs) as pool:
            return 0 if all(list(pool.map(work, tasks))) else 1


def machine(engine: Engine, options: argparse.Namespace) -> dict[str, str]:
    git = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    return {
        "engine": engine.call([str(engine.binary), "--version"]).strip(),
        "commit": os.environ.get("VERLET_COMMIT") or git.stdout.strip() or "unknown",
        "date": datetime.date.today().isoformat(),
        "model": options.model.stem,
        "backend": options.backend,
        "device": engine.call([str(engine.binary), "info", "--devices"]).strip(),
    }


def common(options: argparse.Namespace, structure: Path) -> dict[str, object]:
    """The settings of every run."""
    return {
        "system.structure": str(structure.resolve()),
        "model.file": str(options.model.resolve()),
        "dynamics.timestep": TIMESTEP,
        "dynamics.seed": 1,
        "backend.threads": options.threads,
        "output.trajectory.forces": True,
        "output.trajectory.velocities": False,
    }


def plan_nve(options: argparse.Namespace, scratch: Path) -> list[Task]:
    tasks = []
    for number, one in enumerate(molecules.unseen(options.molecules), start=1):
        structure = scratch / f"nve-{number:02d}.xyz"
        molecules.write(structure, [one])
        every = {"output.energy.interval": 1, "output.trajectory.interval": 1}
        settings = common(options, structure) | {"dynamics.temperature": KELVIN, "dynamics.steps": SHORT} | every
        tasks.append(Task("nve", f"{number:02d}", settings, (one,)))
    return tasks


def plan_langevin(options: argparse.Namespace, scratch: Path) -> list[Task]:
    hot = molecules.of_ten_classes(molecules.unseen(options.molecules), options.hot)
    groups = [hot[k : k + options.together] for k in range(0, len(hot), options.together)]
    tasks = []
    for number, group in enumerate(groups, start=1):
        structure = scratch / f"langevin-{number:02d}.xyz"
        # Alone, a molecule is centred all the same.
        group = molecules.apart(group, SPACING)
        molecules.write(structure, group)
        bath = {"dynamics.ensemble": "langevin", "dynamics.temperature": HOT, "dynamics.friction": 5}
        length = {"dynamics.duration": f"{options.time} ps", "output.trajectory.precision": "f64"}
        every = {"output.energy.interval": 20, "output.trajectory.interval": 40}
        tasks.append(Task("langevin", f"{number:02d}", common(options, structure) | bath | length | every, tuple(group)))
    return tasks


def plan_water(options: argparse.Namespace, scratch: Path) -> list[Task]:
    structure = scratch / "water.xyz"
    liquid.box(STRUCTURES / "water64.xyz", structure)
    bath = {"dynamics.ensemble": "langevin", "dynamics.temperature": KELVIN, "dynamics.friction": 2}
    length = {"dynamics.duration": f"{options.water_time} ps"}
    every = {"output.energy.interval": 20, "output.trajectory.interval": 100}
    copies = {64: [1, 1, 1], 512: [2, 2, 2]}
    settings = common(options, structure) | bath | length | every
    return [Task("water", str(size), settings | {"system.replicate": copies[size]}) for size in options.waters]


PLANS = {"nve": plan_nve, "langevin": plan_langevin, "water": plan_water}


def perform(engine: Engine, task: Task, until: float) -> tuple[dict, dict]:
    """Runs a task, or as much of it as the time allows, and reduces what it left; also returns frames to keep."""
    folder = engine.scratch / f"{task.kind}-{task.name}"
    begun = time.monotonic()
    process = subprocess.Popen(
        engine.command(folder, task.settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said, warned = process.communicate(timeout=min(max(until - begun, 0.0), 1e6))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # the engine ends its step and its files
        said, warned = process.communicate()
    result = {"seconds": round(time.monotonic() - begun, 1), "status": process.returncode}
    result["asked"] = task.settings.get("dynamics.duration")
    # Standard error has its progress, a line every few seconds, and its warnings.
    result["said"] = [line for line in warned.splitlines() if line.strip() and " ETA " not in line][:20]
    result["verdict"] = next((line.split(None, 1)[1] for line in said.splitlines() if line.startswith("verdict")), "none")
    if process.returncode not in ENDED:
        result["failure"] = " ".join(result["said"])
    try:
        more, frames = REDUCE[task.kind](task, Run(folder))
    except (OSError, ValueError, KeyError) as problem:  # nothing, or too little, was written
        return result | {"failure": result.get("failure") or f"cannot be judged: {problem}"}, {}
    finally:
        # Only what is reduced stays: a folder of trajectories would be some hundred megabytes.
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    return result | more, frames


def reduce_nve(task: Task, done: Run) -> tuple[dict, dict]:
    (one,) = task.molecules
    return {"name": one.name, "family": one.family} | reduce.constant_energy(done, TIMESTEP), {}


def reduce_langevin(task: Task, done: Run) -> tuple[dict, dict]:
    return reduce.hot(done, task.molecules, HOT)


def reduce_water(task: Task, done: Run) -> tuple[dict, dict]:
    return reduce.water(done, KELVIN, keep=int(task.name) == 64)


REDUCE = {"nve": reduce_nve, "langevin": reduce_langevin, "water": reduce_water}


def keep(into: Path, about: dict, task: Task, result: dict, frames: dict[str, np.ndarray]) -> None:
    """Adds a result to the folder; each file is written beside itself, then renamed."""
    path = into / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {"about": about}
    results.setdefault(task.kind, {})[task.name] = result
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(results, indent=1, default=float) + "\n")
    fresh.replace(path)
    for name, arrays in frames.items():
        path = into / "frames.npz"
        stored = dict(np.load(path)) if path.exists() else {}
        stored |= {f"{name}/{key}": value for key, value in arrays.items()}
        fresh = path.with_suffix(".new.npz")
        np.savez_compressed(fresh, **stored)
        fresh.replace(path)


def teach(options: argparse.Namespace) -> int:
    import teacher

    answers = teacher.compare(options.runs / "frames.npz", options.waters)
    (options.runs / "teacher.json").write_text(json.dumps(answers, indent=1) + "\n")
    return 0


def page(options: argparse.Namespace) -> int:
    import organic_page

    return organic_page.write(options.runs, options.name, options.results)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"The engine failed: {failure}")
