"""The engine's speed beside that of other programs: `make bench-peers`, or `python validation/peers/compare.py --help`.

Every size is timed in rounds: the engine's whole MD steps (`verlet bench`), then evaluations of energy and forces in
each peer, then the engine again. What else the machine does then hits all of them alike. The peers get their pairs
ready made; the engine's steps have the neighbour list, its rebuilds and the integrator in them. All compute the same
network with the same weights on the same structures, which is checked: by the number of pairs, and by the forces. Needs
Python, NumPy and PyTorch; SchNetPack only for the peer of that name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from pairs import read

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "inputs/models/ethanol-water-v2.safetensors"
SIZES = {"cpu": [11, 50, 192, 1023], "cuda": [10, 20, 50, 100, 1023, 10239, 32766, 102399]}
DEFAULT_PEERS = {"cpu": ["schnetpack"], "cuda": ["eager", "torchscript", "cuda-graph"]}
#: How many times faster than SchNetPack on two cores the engine is to be, by size.
TARGETS = {("cpu", "schnetpack"): {11: 5, 50: 8, 192: 20, 1023: 40}}
#: Rounds, and seconds of a peer in each.
EFFORT = {"cpu": (5, 3.0), "cuda": (2, 1.5)}
LEAST = 3
#: eV/Å, of the largest force: float32 on either side.
SAME_FORCES = 1e-3
#: Forces of larger systems are not compared: they would only take time.
MOST_COMPARED = 1100


class Failure(Exception):
    """Something that ends the comparison of one size, in words."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, default=ROOT / "target/release/verlet", help="the binary")
    parser.add_argument("--model", type=Path, default=MODEL, help="a PaiNN that knows water")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", help="atoms of water, as verlet bench has them")
    parser.add_argument("--peers", nargs="+", choices=["schnetpack", "eager", "torchscript", "cuda-graph"])
    parser.add_argument("--threads", type=int, default=2, help="on the CPU, of everybody")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of a peer in a round")
    parser.add_argument("--repetitions", type=int, default=10, help="of verlet bench in a round")
    parser.add_argument("--json", type=Path, help="file for all numbers, written anew after every size")
    options = parser.parse_args()
    options.engine = options.engine.resolve()
    if not options.engine.is_file():
        sys.exit(f"there is no {options.engine}: run `make build` first, or name a binary with --engine")
    options.sizes = options.sizes or SIZES[options.device]
    options.peers = options.peers or DEFAULT_PEERS[options.device]
    rounds, seconds = EFFORT[options.device]
    options.rounds, options.seconds = options.rounds or rounds, options.seconds or seconds
    report = {"format": "verlet-peers/1", "device": options.device, "rounds": options.rounds, "sizes": []}
    print(HEADER, flush=True)
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="verlet-peers-") as folder:
            try:
                result = compare(options, size, Path(folder))
            except Failure as failure:
                result = {"size": size, "error": str(failure)}
        result["load"] = os.getloadavg()[0]
        report["sizes"].append(result)
        print(rows(options.device, result), flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(footer(report, options))
    return 0 if all("error" not in result for result in report["sizes"]) else 1


def compare(options: argparse.Namespace, size: int, folder: Path) -> dict:
    """All rounds of one size."""
    ours, peers = [], {name: [] for name in options.peers}
    machine = None
    worker = None
    try:
        for number in range(options.rounds):
            print(f"{size} atoms: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            bench = engine(options, size, folder, number)
            machine, found = bench["machine"], bench["systems"][0]
            ours.append(found)
            if "error" in found:
                raise Failure(f"verlet bench: {found['error']}")
            if worker is None:
                structure = folder / f"water-{found['atoms']}.xyz"
                worker = Worker(options, structure)
                if worker.about["pairs"] != found["pairs"]:
                    raise Failure(f"{worker.about['pairs']} pairs here, {found['pairs']} in the engine")
                reference = forces(options, structure) if found["atoms"] <= MOST_COMPARED else None
            for name in options.peers:
                done = peers[name]
                if done and "error" in done[-1]:
                    continue
                request = {"peer": name, "seconds": options.seconds, "least": LEAST}
                answer = worker.ask(request | {"forces": not done and reference is not None})
                if "forces" in answer:
                    answer["force_difference"] = float(np.abs(np.array(answer.pop("forces")) - reference).max())
                    if not answer["force_difference"] < SAME_FORCES:
                        answer["error"] = f"forces differ by {answer['force_difference']:.1e} eV/Å: another network"
                done.append(answer)
    finally:
        if worker is not None:
            worker.close()
    every = np.concatenate([found["step_seconds"]["all"] for found in ours])
    steps = np.concatenate([[f["steps_per_repetition"]] * len(f["step_seconds"]["all"]) for f in ours])
    return {
        "size": size,
        "atoms": found["atoms"],
        "pairs": found["pairs"],
        "engine": summary(every, steps)
        | {
            "rebuild_share": float(np.mean([f["rebuild_share"] for f in ours])),
            "memory_bytes": max((f["memory_bytes"] or 0 for f in ours), default=0),
        },
        "peers": {name: merged(answers) for name, answers in peers.items()},
        "machine": machine,
        "versions": worker.about["versions"],
        "threads": worker.about["threads"],
    }


def engine(options: argparse.Namespace, size: int, folder: Path, number: int) -> dict:
    """One run of `verlet bench`; the first writes the structure."""
    out = folder / f"{number}.json"
    command = [options.engine, "bench", "--backend", options.device, "--model", options.model, "--sizes", size]
    command += ["--repetitions", options.repetitions, "--json", out]
    if options.device == "cpu":
        command += ["--threads", options.threads]
    if number == 0:
        command += ["--write-structures", folder]
    call(command)
    return json.loads(out.read_text())


def forces(options: argparse.Namespace, structure: Path) -> np.ndarray:
    """The engine's forces, eV/Å."""
    out = structure.with_suffix(".forces.xyz")
    call([options.engine, "evaluate", "--backend", options.device, "--model", options.model, structure, "-o", out])
    return read(out).columns["forces"]


def call(command: list) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or f"verlet ended with status {done.returncode}")


class Worker:
    """A process with PyTorch and one structure."""

    def __init__(self, options: argparse.Namespace, structure: Path):
        command = [sys.executable, str(Path(__file__).with_name("worker.py")), "--device", options.device]
        command += ["--model", str(options.model), "--structure", str(structure)]
        if options.device == "cpu":
            command += ["--threads", str(options.threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.read()
        if "error" in self.about:
            raise Failure(f"PyTorch: {self.about['error']}")

    def read(self) -> dict:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"the process ended with status {self.process.wait()}"}

    def ask(self, request: dict) -> dict:
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": f"the process ended with status {self.process.wait()}"}
        return self.read()

    def close(self) -> None:
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


def summary(seconds: np.ndarray, weights: np.ndarray | None = None) -> dict:
    """Median, spread and mean; the mean is over all steps where repetitions have different numbers of them."""
    low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9])
    mean = np.average(seconds, weights=weights)
    return {"median": median, "tenth": low, "ninetieth": high, "mean": mean, "all": list(map(float, seconds))}


def merged(answers: list[dict]) -> dict:
    """The rounds of one peer."""
    failed = [answer["error"] for answer in answers if "error" in answer]
    if failed:
        return {"error": failed[0]}
    result = summary(np.concatenate([answer["seconds"] for answer in answers]))
    for key in ("force_difference", "memory_bytes"):
        known = [answer[key] for answer in answers if key in answer]
        result |= {key: max(known)} if known else {}
    return result


COLUMNS = {
    "size": 6,
    "atoms": 6,
    "pairs": 7,
    "program": 18,
    "median ms": 9,
    "10–90 %": 15,
    "mean ms": 9,
    "M atoms/s": 9,
    "MB": 6,
    "slower": 7,
    "by mean": 7,
    "target": 6,
}
HEADER = "\n".join(
    [
        "| " + " | ".join(f"{name:>{width}}" for name, width in COLUMNS.items()) + " |",
        "|" + "|".join("-" * (width + 1) + ":" for width in COLUMNS.values()) + "|",
    ]
)


def rows(device: str, result: dict) -> str:
    """The lines of one size."""
    if "error" in result:
        return line(result["size"]) + " " + result["error"]
    head = (result["size"], result["atoms"], result["pairs"])
    ours = result["engine"]
    lines = [line(*head, "verlet, whole step", *times(ours, result["atoms"]), "1.0", "1.0", "")]
    for name, peer in result["peers"].items():
        if "error" in peer:
            lines.append(line(*head, name) + " " + peer["error"])
            continue
        ratio, by_mean = peer["median"] / ours["median"], peer["mean"] / ours["mean"]
        target = TARGETS.get((device, name), {}).get(result["size"])
        wanted = f"{'≥' if ratio >= target else '<'} {target}" if target else ""
        lines.append(line(*head, name, *times(peer, result["atoms"]), f"{ratio:.1f}", f"{by_mean:.1f}", wanted))
    return "\n".join(lines)


def line(*cells: object) -> str:
    """The first cells of a row."""
    return "| " + " | ".join(f"{str(cell):>{width}}" for cell, width in zip(cells, COLUMNS.values())) + " |"


def times(found: dict, atoms: int) -> list[str]:
    """Median, spread, mean, million atoms a second, memory."""
    low, median, high, mean = (f"{1e3 * found[key]:.4g}" for key in ("tenth", "median", "ninetieth", "mean"))
    memory = found.get("memory_bytes")
    rate = f"{1e-6 * atoms / found['mean']:.3g}"
    return [median, f"{low}–{high}", mean, rate, f"{1e-6 * memory:.0f}" if memory else ""]


def footer(report: dict, options: argparse.Namespace) -> str:
    """What the numbers depend on."""
    good = [result for result in report["sizes"] if "error" not in result]
    if not good:
        return ""
    first = good[-1]
    about = first["machine"]
    gpu = about["gpu"] or {}
    lines = [
        "",
        f"machine   {about['processor']}, {about['cores']} cores" + (f"; {gpu['name']}" if gpu else ""),
        f"threads   {first['threads']}" if options.device == "cpu" else f"driver    {gpu.get('driver')}",
        f"verlet    {about['version']}, commit {about['commit']}, {about['instructions']}",
        "others    " + ", ".join(f"{name} {version}" for name, version in first["versions"].items()),
        f"load      {max(result['load'] for result in good):.1f} at most: 1-minute mean, our own work included",
    ]
    known = [
        peer["force_difference"] for result in good for peer in result["peers"].values() if "force_difference" in peer
    ]
    if known:
        lines.append(f"forces    differ from the engine's by {max(known):.1e} eV/Å at most")
    share = max(result["engine"]["rebuild_share"] for result in good)
    lines.append(f"rebuilds  of the neighbour list take {100 * share:.1f} % of the engine's time at most")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
