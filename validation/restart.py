"""A run that was killed and resumed is the run that nobody killed, bit for bit."""

from __future__ import annotations

import random
import shutil
import subprocess
import time

import h5py
import numpy as np
from engine import ENDED, Engine, Failure, Run
from page import Check, Section

STEPS = 4000
KILLS = 20
MOST_KILLS_A_RUN = 5
SEED = 7

TEXT = f"""
Ethanol under Langevin dynamics, {STEPS} steps with a checkpoint every 200. The same run is killed (SIGKILL) at a random
moment, resumed, killed again, up to {MOST_KILLS_A_RUN} times, then left to end; {KILLS} kills in all. Energy log and
trajectory, both in float64, must then be those of the run that nobody killed. The check counts the datasets of the file
that differ in any bit. Control: another seed of the random forces.
"""


def check(engine: Engine) -> Section:
    section = Section("restart", "Restart", TEXT)
    settings = {
        "dynamics.ensemble": "langevin",
        "dynamics.steps": STEPS,
        "output.trajectory.precision": "f64",
        "output.trajectory.forces": True,
        "output.checkpoint.interval": 200,
    }
    begun = time.monotonic()
    whole = engine.run("whole", settings)
    duration = time.monotonic() - begun
    chance = random.Random(SEED)
    kills = runs = early = 0
    differing: list[str] = []
    while kills < KILLS:
        folder = engine.scratch / f"killed-{runs}"
        begin = engine.command(folder, settings)
        command, mine = begin, 0
        while True:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if mine < MOST_KILLS_A_RUN and kills < KILLS:
                time.sleep(chance.uniform(0, duration / 2))
                process.kill()
            message = process.communicate()[1]
            if process.returncode in ENDED:
                break
            if process.returncode > 0:
                raise Failure(message)
            kills, mine = kills + 1, mine + 1
            command = engine.resume_command(folder)
            if not any(folder.glob("checkpoint*.vlt")):
                # Killed before there was anything to go on from.
                early += 1
                shutil.rmtree(folder, ignore_errors=True)
                command = begin
        differing += differences(whole, Run(folder))
        runs += 1
    section.checks.append(Check(f"{kills} kills in {runs} runs: datasets that differ", len(differing), 0, ""))
    other = engine.run("other-seed", {**settings, "dynamics.seed": 2})
    found = len(differences(whole, other))
    section.checks.append(Check("another seed: datasets that differ", found, 0, "", control=True))
    section.notes.append(f"{early} of the kills came before the first checkpoint: those runs began again.")
    section.numbers = {"kills": kills, "runs": runs, "before the first checkpoint": early, "differing": differing}
    return section


def differences(one: Run, other: Run) -> list[str]:
    """Names of the datasets that are not the same in both trajectories."""
    names: list[str] = []
    with h5py.File(one.trajectory) as a, h5py.File(other.trajectory) as b:

        def compare(name: str, dataset: h5py.Dataset | h5py.Group) -> None:
            if isinstance(dataset, h5py.Dataset):
                same = name in b and np.array_equal(bits(dataset), bits(b[name]))
                names.extend([] if same else [name])

        a.visititems(compare)
    return names


def bits(dataset: h5py.Dataset) -> np.ndarray:
    """The values as bytes: a minus zero is not a zero."""
    return np.frombuffer(np.ascontiguousarray(dataset[()]).tobytes(), dtype=np.uint8)
