"""Checkpoints: the averaged weights that a student is, and the state with which training goes on as if never stopped.

A file (`torch.save`) holds weights, offsets (eV by element), shortest (Å by pair of elements), energy_per_atom (eV, lowest
and highest of the frames, without offsets), step, and `state`:

- weights, moments: of every parameter as the optimizer holds them; the averages are in `weights` above
- step, epoch, row: steps done, epochs done, batches done of the present epoch
- shuffle: the random generator as it was before the present epoch was drawn
- trained, reading: seconds spent in steps and before the first of them, over all sessions
- settings, labels: what training depends on, by name, and a digest of the frames, so that neither can change unseen
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers

from .config import Config, Training
from .dataset import Frames
from .model_file import read_model_file
from .painn import PaiNN
from .problem import InputError

# What the command line may change, and what a resumed training therefore has from the state.
CHANGEABLE = ("steps", "learning_rate")


@dataclass
class Progress:
    """How far training has come, but for the numbers in its tensors."""

    step: int = 0
    epoch: int = 0
    row: int = 0
    shuffle: str = ""  # JSON
    trained: float = 0.0  # s
    reading: float = 0.0  # s
    time_limit: float = float("inf")  # s, with which the schedule ends


def build_network(config: Config) -> PaiNN:
    n = config.network
    return PaiNN(n.features, n.interactions, n.gaussians, n.cutoff, n.readout, n.norm_epsilon, n.bessel)


def digest(frames: Frames) -> str:
    """Of the frames that are trained on: elements, positions, energies and forces, in their order."""
    found = hashlib.sha256()
    for tensor in (frames.numbers, frames.positions, frames.energies, frames.forces):
        found.update(np.ascontiguousarray(tensor.cpu().numpy()))
    return found.hexdigest()


def save_checkpoint(path: Path, step, frames: Frames, offsets, training: Training, progress: Progress, labels: str):
    """Writes it aside and renames it, so that a file that exists is whole. `step` is a `train.Step`."""
    names = [name for name, _ in step.model.named_parameters()]
    weights = {name: t.detach().cpu().clone() for name, t in step.model.state_dict().items()}
    state = {
        "weights": [p.detach().cpu().clone() for p in step.parameters],
        "moments": [[t.cpu().clone() for t in step.moments(p)] for p in step.parameters],
        "progress": asdict(progress),
        "settings": _settings(training),
        "labels": labels,
    }
    weights |= {name: mean.cpu().clone() for name, mean in zip(names, step.average, strict=True)}
    whole = {
        "weights": weights,
        "offsets": offsets,
        "shortest": frames.shortest,
        "energy_per_atom": frames.energy_per_atom(),
        "step": progress.step,
        "state": state,
    }
    temporary = path.with_suffix(".tmp")
    torch.save(whole, temporary)
    os.replace(temporary, path)


def load_student(config: Config, path: Path, device="cpu") -> tuple[PaiNN, dict]:
    """The network of a checkpoint, with the averaged weights, and the checkpoint itself."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    model = build_network(config)
    try:
        model.load_state_dict(checkpoint["weights"])
    except RuntimeError:
        raise InputError(f"{path}: its network is not that of [network]: train anew, or restore the sizes") from None
    return model.to(device), checkpoint


def load_network(config: Config, path: Path, device="cpu") -> tuple[PaiNN, dict[int, float]]:
    """The network of a checkpoint or of a model file, and its energy offsets (eV by atomic number).

    Raises InputError where it is not that of [network], or does not know all elements of the configuration.
    """
    if path.suffix != ".safetensors":
        model, checkpoint = load_student(config, path, device)
        offsets = checkpoint["offsets"]
    else:
        model, description = read_model_file(path)
        n = config.network
        wanted = (n.features, n.interactions, n.radial_basis(), n.cutoff, n.readout, n.norm_epsilon)
        basis, readout = description["radial_basis"], description["readout_layers"]
        keys = ("features", "interactions", "cutoff", "norm_epsilon")
        features, interactions, cutoff, epsilon = (description[key] for key in keys)
        if wanted != (features, interactions, basis, cutoff, readout[1], epsilon):
            raise InputError(f"{path}: its network is not that of [network]: train anew, or restore the sizes")
        offsets = {atomic_numbers[symbol]: e for symbol, e in description["energy_offset"]["per_element"].items()}
        model = model.to(device)
    if missing := sorted(set(config.elements) - offsets.keys()):
        raise InputError(f"{path} does not know the elements {missing} of the configuration")
    return model, offsets


def _settings(training: Training) -> dict[str, str]:
    """Every setting of the training as text, which survives the file exactly."""
    return {key: json.dumps(value) for key, value in asdict(training).items()}


def resumed_settings(path: Path, checkpoint: dict, training: Training) -> Training:
    """The training's settings, CHANGEABLE from the state. Raises InputError where another one has changed since."""
    if "state" not in checkpoint:
        raise InputError(f"{path} holds weights alone: begin a new schedule from it with --start")
    then, now = checkpoint["state"]["settings"], _settings(training)
    changed = [k for k in sorted(then.keys() | now.keys()) if k not in CHANGEABLE and then.get(k) != now.get(k)]
    if changed:
        listed = ", ".join(f"{key} (then {then.get(key)}, now {now.get(key)})" for key in changed)
        raise InputError(f"[training] has changed since {path}: {listed}: restore it, or begin anew with --start")
    return replace(training, **{key: json.loads(then[key]) for key in CHANGEABLE})


def resume(path: Path, checkpoint: dict, step, labels: str) -> Progress:
    """Puts the state's numbers into `step`, in place; returns how far it had come."""
    state = checkpoint["state"]
    if state["labels"] != labels:
        raise InputError(f"the labels are not those of {path}: begin a new schedule from it with --start")
    with torch.no_grad():
        for parameter, mean, (name, _) in zip(
            step.parameters, step.average, step.model.named_parameters(), strict=True
        ):
            mean.copy_(checkpoint["weights"][name])
        for parameter, weights, moments in zip(step.parameters, state["weights"], state["moments"], strict=True):
            parameter.copy_(weights)
            for kept, saved in zip(step.moments(parameter), moments, strict=True):
                kept.copy_(saved)
    return Progress(**state["progress"])
