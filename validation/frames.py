"""What frames cost: whole runs that write one every few steps, beside the same runs without.

Both log energies every tenth step. A time is that of a long run without that of a short one, from the moment in which
the engine is ready to its last word, so that what a run does once falls out. Runs with and without frames, of every
engine that is named, take turns, and the last engine is judged. Needs Python alone; structures are `verlet bench`'s.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
INPUT = ROOT / "validation/base.toml"
#: Atoms times steps of a long run, at most so many steps, and how many times longer it is than a short one.
WORK, MOST, LONGER = 20_000_000, 40_000, 5
#: Part of the time that frames may take.
BOUND = 0.03


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    default = [ROOT / "target/release/verlet"]
    parser.add_argument("--engine", type=Path, nargs="+", default=default, help="one or more binaries")
    parser.add_argument("--backend", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=[102, 102_399], help="atoms of water")
    parser.add_argument("--interval", type=int, default=10, help="steps between frames of positions and velocities")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    engines, results, good = options.engine, [], True
    with tempfile.TemporaryDirectory(prefix="verlet-frames-") as scratch:
        for size in options.sizes:
            structure = write_structure(engines[0], options.backend, size, Path(scratch))
            steps = max(options.interval * LONGER, min(MOST, WORK // size) // (10 * LONGER) * 10 * LONGER)
            times = {engine: {"without": [], "with": []} for engine in engines}
            for _ in range(options.rounds):
                for engine in engines:
                    for how, interval in (("without", 10**9), ("with", options.interval)):
                        command = run_command(engine, options.backend, structure, interval)
                        long, short = (seconds(command, count, Path(scratch)) for count in (steps, steps // LONGER))
                        times[engine][how].append((long - short) / (steps - steps // LONGER))
                        last = 1e6 * times[engine][how][-1]
                        print(f"{engine.name}, {size} atoms, {how}: {last:.2f} µs", file=sys.stderr)
            for engine in engines:
                without, with_frames = (median(times[engine][how]) for how in ("without", "with"))
                cost = with_frames / without - 1
                numbers = {"engine": str(engine), "atoms": size, "steps": steps, "seconds_a_step": times[engine]}
                results.append({**numbers, "cost": cost})
                print(
                    f"{engine.name}: {size} atoms, {1e6 * without:.2f} µs a step without frames, "
                    f"{1e6 * with_frames:.2f} with one every {options.interval}: {100 * cost:+.2f} %",
                    flush=True,
                )
                good = good and (engine != engines[-1] or cost <= BOUND)
            if options.json:
                options.json.write_text(json.dumps({"interval": options.interval, "results": results}, indent=1) + "\n")
    return 0 if good else 1


def write_structure(engine: Path, backend: str, size: int, folder: Path) -> Path:
    """A file with water of so many atoms."""
    into = folder / "structures"
    command = [str(engine.resolve()), "bench", "--backend", backend, "--sizes", str(size), "--repetitions", "1"]
    command += ["--write-structures", str(into)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return max(into.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def run_command(engine: Path, backend: str, structure: Path, interval: int) -> list[str]:
    changes = {
        "system.structure": str(structure),
        "output.trajectory.interval": interval,
        "output.trajectory.velocities": True,
        "output.energy.interval": 10,
    }
    given = [word for key, value in changes.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return [str(engine.resolve()), "run", str(INPUT), "--backend", backend, *given]


def seconds(command: list[str], steps: int, scratch: Path) -> float:
    """From the line with which a run of so many steps begins to its end."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        words = [*command, "--output", f"{folder}/run", "--set", f"dynamics.steps={steps}"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as engine:
            begun = ended = None
            for line in engine.stdout:
                begun = time.perf_counter() if line.startswith("output ") else begun
                ended = time.perf_counter() if line.startswith("finished ") else ended
            errors = engine.stderr.read()
        if engine.returncode not in (0, 3) or begun is None or ended is None:
            sys.exit(f"{' '.join(words)} failed: {errors}")
        return ended - begun


if __name__ == "__main__":
    sys.exit(main())
