"""Pictures of speed: `python validation/speed_plot.py NUMBERS.json PICTURE.svg`.

NUMBERS.json holds what was measured on one machine: `bench`, reports of `verlet bench --json`; `before`, reports of an older
version; `kernels`, milliseconds of a step by kernel; `peers`, a report of `peers/compare.py --json`. Any of them may be missing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from page import plt


def medians(reports: list[dict]) -> tuple[list[int], list[float]]:
    """Atoms, and seconds a step."""
    found = {system["atoms"]: system["step_seconds"]["median"] for report in reports for system in report["systems"]}
    return sorted(found), [found[atoms] for atoms in sorted(found)]


def main() -> int:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    numbers = json.loads(Path(sys.argv[1]).read_text())
    figure, (steps, kernels, peers) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for name, label, style in (("before", "before", "o:"), ("bench", "now", "s-")):
        if name in numbers:
            atoms, seconds = medians(numbers[name])
            steps.loglog(atoms, [1e6 * second for second in seconds], style, label=label, markersize=3)
    steps.set(xlabel="atoms", ylabel="µs a step", title="Whole steps")
    steps.legend()
    parts = sorted(numbers.get("kernels", {}).items(), key=lambda part: part[1])
    kernels.barh([name for name, _ in parts], [time for _, time in parts])
    kernels.set(xlabel="ms of a step", title="Kernels of many atoms")
    sizes = [size for size in numbers.get("peers", {}).get("sizes", []) if size.get("peers")]
    for peer in sorted({name for size in sizes for name in size["peers"]}):
        found = [(size["atoms"], size["peers"][peer]["median"] / size["engine"]["median"]) for size in sizes
                 if "median" in size["peers"].get(peer, {})]
        if found:
            peers.loglog(*zip(*found, strict=True), "o-", label=peer, markersize=3)
    peers.set(xlabel="atoms", ylabel="times the engine's step", title="Other programs")
    if sizes:
        peers.legend()
    figure.savefig(sys.argv[2], metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
