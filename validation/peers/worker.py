"""Times the peers on one structure; `compare.py` starts it, one process for each structure, and speaks JSON with it.

A line asks for one peer: {"peer": NAME, "seconds": S, "least": N, "forces": true or false}. The line that answers has
the seconds of an evaluation, a number for each batch that was timed, or an error. Between two requests the process
holds no memory of the device but the structure's.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from networks import PEERS, Evaluator, Problem  # noqa: E402
from pairs import read  # noqa: E402

#: Evaluations before any is timed: PyTorch chooses and compiles kernels in the first ones.
WARM_UP = 5
#: Seconds that are timed at once on a GPU, where launches are not waited for one by one.
BATCH = 0.01
MOST = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--structure", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    # What libraries print is not for our reader.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        problem = Problem(options.model, read(options.structure), options.device)
    except Exception as error:  # said by who asked
        return answer({"error": explain(error)})
    answer({"pairs": problem.pairs, "threads": torch.get_num_threads(), "versions": versions(options.device)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = run(problem, request)
        except Exception as error:  # whatever a peer cannot do is its row's answer
            result = {"error": explain(error)}
        release(options.device)
        answer(result)


def run(problem: Problem, request: dict) -> dict:
    cuda = problem.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    evaluator = PEERS[request["peer"]](problem)
    energy, forces = evaluator()
    result = {"energy": float(energy.sum())}
    if request.get("forces"):
        result["forces"] = forces.tolist()
    warm = timed(evaluator, WARM_UP, problem.device)
    batch = max(1, int(BATCH / warm)) if cuda else 1
    seconds, begun = [], time.perf_counter()
    while len(seconds) < request["least"] or (len(seconds) < MOST and time.perf_counter() - begun < request["seconds"]):
        seconds.append(timed(evaluator, batch, problem.device))
    if cuda:
        result["memory_bytes"] = torch.cuda.max_memory_reserved()
    return result | {"seconds": seconds, "evaluations_each": batch}


def timed(evaluator: Evaluator, count: int, device: str) -> float:
    """Mean seconds of an evaluation."""
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(count):
        evaluator()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / count


def release(device: str) -> None:
    gc.collect()
    if device == "cuda":
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError:
            pass  # an error of before, which has been answered


def explain(error: Exception) -> str:
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or "out of memory" in str(error):
        return "out of memory"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def versions(device: str) -> dict[str, str]:
    found = {"torch": torch.__version__, "python": sys.version.split()[0]}
    try:
        found["schnetpack"] = importlib.metadata.version("schnetpack")
    except importlib.metadata.PackageNotFoundError:
        pass
    if device == "cuda":
        found["device"] = torch.cuda.get_device_name()
    return found


if __name__ == "__main__":
    main()
