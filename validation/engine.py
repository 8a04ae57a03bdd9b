"""The engine as its users meet it: the binary, an input, and the files that a run leaves."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
INPUT = ROOT / "validation/base.toml"
MODEL = ROOT / "inputs/models/ethanol-water-v2.safetensors"
STRUCTURES = ROOT / "inputs/structures"

#: How a run ends that did not fail: as planned; with a verdict of FAIL, which is for the checks to judge; stopped by a signal.
ENDED = (0, 3, 4)


class Failure(Exception):
    """The engine ended with an error; the text is the engine's."""


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    @property
    def trajectory(self) -> Path:
        return self.folder / "trajectory.h5md"

    @cached_property
    def log(self) -> dict[str, np.ndarray]:
        """The energy log: step, time in ps, energies in eV, temperature in K."""
        with h5py.File(self.trajectory) as file:
            return {name: column[:] for name, column in file["parameters/verlet/energy"].items()}

    def frames(self, quantity: str) -> np.ndarray:
        """`position` (Å), `velocity` (Å/ps) or `force` (kJ/mol/Å) of all frames, [frame][atom][3]."""
        with h5py.File(self.trajectory) as file:
            return file[f"particles/trajectory/{quantity}/value"][:].astype(float)

    @cached_property
    def masses(self) -> np.ndarray:
        """u."""
        with h5py.File(self.trajectory) as file:
            return file["particles/trajectory/mass"][:]


@dataclass(frozen=True)
class Engine:
    """The binary to judge."""

    binary: Path
    backend: str
    scratch: Path

    def command(self, folder: Path, settings: dict[str, object]) -> list[str]:
        """How to run `base.toml` with `settings` into `folder`: one thread each, since many runs share the machine."""
        given = {"backend.threads": 1, **settings}
        # What JSON writes of numbers, words and lists is TOML as well.
        changes = [word for key, value in given.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        backend = ["--backend", self.backend]
        return [str(self.binary), "run", str(INPUT), "--output", str(folder), *backend, *changes]

    def call(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode not in ENDED:
            raise Failure(done.stderr.strip())
        return done.stdout

    def run(self, name: str, settings: dict[str, object]) -> Run:
        folder = self.scratch / name
        self.call(self.command(folder, settings))
        return Run(folder)

    def run_all(self, runs: dict[str, dict[str, object]]) -> dict[str, Run]:
        """Runs side by side, as many as the machine has cores; a GPU takes one after the other."""
        workers = (os.cpu_count() or 1) if self.backend in ("auto", "cpu") else 1
        with ThreadPoolExecutor(workers) as pool:
            done = {name: pool.submit(self.run, name, settings) for name, settings in runs.items()}
            return {name: future.result() for name, future in done.items()}

    def resume_command(self, folder: Path) -> list[str]:
        return [str(self.binary), "resume", str(folder), "--backend", self.backend]

    def evaluate(self, model: Path, structures: Path, output: Path, precision: str) -> None:
        """Energies, forces and stresses of all frames, as extended XYZ. Only the CPU computes in float64."""
        files = ["--model", str(model), str(structures), "--output", str(output)]
        backend = "cpu" if precision == "f64" else self.backend
        self.call([str(self.binary), "evaluate", *files, "--backend", backend, "--precision", precision])
