"""The file that verlet reads: tensors in a safetensors file, with a `config` that says what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .painn import PaiNN
from .problem import InputError


def write_model_file(path: Path, tensors: dict[str, torch.Tensor], description: dict) -> None:
    """Writes `tensors` (float32 or float64, CPU) and `description`, the `config` entry of the file's metadata."""
    save_file(tensors, path, metadata={"config": json.dumps(description)})
    path.chmod(0o644)  # the writer makes it private


def read_model_file(path: Path) -> tuple[PaiNN, dict]:
    """The network of a file that `verlet-train export` wrote, and what the file says of itself.

    Raises InputError for any other file, and FileNotFoundError where there is none.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            description = json.loads((file.metadata() or {})["config"])
        basis, layers = description["radial_basis"], description["readout_layers"]
        model = PaiNN(
            description["features"],
            description["interactions"],
            cutoff=description["cutoff"],
            readout=layers[1],
            epsilon=description["norm_epsilon"],
            **{{"gaussian": "gaussians", "bessel": "bessel"}[basis["kind"]]: basis["count"]},
        )
        model.load_state_dict(tensors)
    except (SafetensorError, KeyError, IndexError, RuntimeError) as error:
        told = str(error).splitlines()[0]
        raise InputError(f"{path} is no model file that `verlet-train export` wrote: {told}") from None
    return model, description
