"""Checkpoints of the MLFF Distiller's StudentForceField: its own `save`, and those of its training."""

from __future__ import annotations

import torch

from .network import Choices, Imported, Refused, elements_within
from .reading import Recorded


def recognises(root: object) -> bool:
    return isinstance(root, dict) and isinstance(root.get("model_state_dict"), dict)


def convert(root: dict, choices: Choices) -> Imported:
    for given, own in [(choices.energy_unit, "eV"), (choices.length_unit, "angstrom")]:
        if given not in (None, own):
            raise Refused(f"the unit {given} is given, but a StudentForceField is in {own}")
    # Training saves the wrapper around the network.
    state = {name.removeprefix("model."): tensor for name, tensor in root["model_state_dict"].items()}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            raise Refused(f"{name} in model_state_dict is no tensor of real numbers")
    if "embedding.weight" not in state or "rbf.centers" not in state:
        raise Refused("model_state_dict has no embedding.weight or no rbf.centers, so it is not a StudentForceField's")
    rows, features = state["embedding.weight"].shape
    count = len(state["rbf.centers"])
    layers = len({name.split(".")[1] for name in state if name.startswith("interactions.")})
    readout = [features, features // 2, features // 4, 1]
    if not layers:
        raise Refused("model_state_dict has no interactions")

    shapes = {"embedding.weight": (rows, features), "rbf.centers": (count,), "rbf.widths": (count,)}

    def dense(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    for layer in range(layers):
        dense(f"interactions.{layer}.message.rbf_to_scalar.0", count, features)
        dense(f"interactions.{layer}.message.rbf_to_scalar.2", features, 3 * features)
        dense(f"interactions.{layer}.update.update_mlp.0", 2 * features, features)
        dense(f"interactions.{layer}.update.update_mlp.2", features, 3 * features)
        shapes[f"interactions.{layer}.update.mixing_matrix"] = (3, 3)
    for k in range(3):
        dense(f"energy_head.{2 * k}", readout[k], readout[k + 1])
    for name in state:
        if name not in shapes:
            raise Refused(f"model_state_dict has {name}, which is no part of a StudentForceField that verlet knows")
    tensors = {name: _taken(state, name, shape) for name, shape in shapes.items()}
    # The last layer's vectors cannot reach the energy.
    del tensors[f"interactions.{layers - 1}.update.mixing_matrix"]

    return Imported(
        architecture="student",
        features=features,
        interactions=layers,
        cutoff=_cutoff(root.get("config"), tensors),
        radial_kind="gaussian",
        radial_count=count,
        readout_layers=readout,
        energy_unit="eV",
        length_unit="angstrom",
        offsets=0.0,
        elements=elements_within(rows, choices.elements),
        provenance="imported from a StudentForceField of the MLFF Distiller",
        tensors=tensors,
        notes=["verlet names the defects of a student network when it loads it"],
    )


def _taken(state: dict[str, torch.Tensor], name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name not in state:
        raise Refused(f"the tensor {name} is missing in model_state_dict")
    tensor = state[name].detach()
    if tuple(tensor.shape) != shape:
        raise Refused(f"the tensor {name} has the shape {list(tensor.shape)} instead of {list(shape)}")
    return tensor.to(torch.float64 if tensor.dtype == torch.float64 else torch.float32).clone().contiguous()


def _cutoff(config: object, tensors: dict[str, torch.Tensor]) -> float:
    """Of the checkpoint's config; a training's config lacks it, then of the grid of Gaussians, which ends there."""
    if isinstance(config, Recorded):
        config = config.state
    if isinstance(config, dict) and "cutoff" in config:
        return float(config["cutoff"])
    centers, widths = tensors["rbf.centers"].double(), tensors["rbf.widths"].double()
    end, count = float(centers[-1]), len(centers)
    untouched = torch.linspace(0, end, count, dtype=torch.float64)
    fresh = torch.allclose(centers, untouched, atol=1e-5) and torch.allclose(
        widths, widths.new_tensor(end / count), atol=1e-5
    )
    if end > 0 and fresh:
        return end
    raise Refused("the checkpoint's config has no cutoff, and its Gaussians (rbf.centers) no longer end at it")
