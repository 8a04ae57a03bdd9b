"""The model file verlet reads, and a parity file with float64 answers that ties the engine to this network."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_names, chemical_symbols

from .config import Config
from .dataset import load, offset_of
from .model_file import write_model_file
from .neighbors import pair_list
from .painn import PaiNN, energy_and_forces


def model_config(config: Config, checkpoint: dict, provenance: str) -> dict:
    """What the model file says of itself (its `config` metadata); see checkpoint.py for the checkpoint."""
    n = config.network
    shortest = {
        f"{chemical_symbols[a]}-{chemical_symbols[b]}": round(d, 4)
        for (a, b), d in sorted(checkpoint["shortest"].items())
    }
    domain = {"shortest_distance": shortest}  # Å, of the frames that were fitted
    if "energy_per_atom" in checkpoint:  # as in all but the oldest: eV without the offsets
        low, high = checkpoint["energy_per_atom"]
        domain["energy_per_atom"] = [math.floor(1e4 * low) / 1e4, math.ceil(1e4 * high) / 1e4]
    r = config.repulsion
    repulsion = {} if r is None else {"repulsion": {"kind": r.kind, "onset": r.onset}}
    return {
        "format": "verlet-model/1",
        "architecture": "painn",
        "features": n.features,
        "interactions": n.interactions,
        "cutoff": n.cutoff,
        "cutoff_function": "cosine",
        "radial_basis": n.radial_basis(),
        "activation": "silu",
        "shared_filters": False,
        "shared_interactions": False,
        "norm_epsilon": n.norm_epsilon,
        "readout_layers": [n.features, n.readout, 1],
        "units": {"energy": "eV", "length": "angstrom"},
        "energy_offset": {"per_element": {chemical_symbols[z]: e for z, e in sorted(checkpoint["offsets"].items())}},
        "elements": config.elements,
        "provenance": provenance,
        **repulsion,
        "domain": domain,
    }


def write_model(path: Path, model: PaiNN, description: dict) -> None:
    tensors = {name: t.detach().to("cpu", torch.float32).contiguous() for name, t in model.state_dict().items()}
    write_model_file(path, tensors, description)


def parity_case(name: str, model: PaiNN, offsets: dict[int, float], atoms: Atoms) -> dict:
    """Energy, forces and strain derivative of `atoms`; `model` is in float64. Keys name their units."""
    x = torch.as_tensor(atoms.positions, dtype=torch.float64)
    cell = torch.as_tensor(np.array(atoms.cell)) if atoms.pbc.all() else None
    numbers = torch.as_tensor(atoms.numbers, dtype=torch.long)
    _, i, j, shift = pair_list(x[None], model.cutoff, cell)
    energies, forces = energy_and_forces(model, numbers, x, i, j, shift)
    # A strain ε takes every pair vector r to r(1 + ε): differentiate by a symmetric ε.
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    r = x[j] - x[i] + shift
    strained = model(numbers, r + r @ (0.5 * (strain + strain.T)), i, j).sum()
    (derivative,) = torch.autograd.grad(strained, strain, allow_unused=True)
    total = float(energies.sum())
    return {
        "name": name,
        "atomic_numbers": atoms.numbers.tolist(),
        "positions_angstrom": atoms.positions.tolist(),
        "cell_angstrom": None if cell is None else cell.tolist(),
        "pbc": atoms.pbc.tolist(),
        "directed_pairs": len(i),
        "network_energy_ev": total,
        "total_energy_ev": total + offset_of(atoms.numbers, offsets),
        "atomic_network_energies_ev": energies.tolist(),
        "forces_ev_per_angstrom": forces.tolist(),
        "strain_derivative_ev": (torch.zeros(3, 3) if derivative is None else derivative).tolist(),
    }


def parity_structures(config: Config) -> dict[str, Atoms]:
    """One held-out frame of each family, a sheared box of water, and a lone atom."""
    found: dict[str, Atoms] = {}
    for t in load(config.data, float("inf")):
        if t.split == "test" and t.family not in found:
            atoms = Atoms(t.numbers, np.round(t.positions[0].astype(float), 6))
            if t.cell is not None:
                atoms.set_cell(np.round(t.cell, 6))
                atoms.pbc = True
            found[t.family] = atoms
    found = dict(sorted(found.items(), key=lambda item: (item[1].pbc.any(), len(item[1]))))
    if box := found.get("water16-periodic"):
        found["water16-triclinic"] = sheared(box)
    lone = 8 if 8 in config.elements else config.elements[-1]
    found[f"lone-{atomic_names[lone].lower()}"] = Atoms([lone], positions=[[0.3, -0.2, 0.1]])
    return found


def sheared(box: Atoms) -> Atoms:
    """The box in a triclinic cell of the same volume; waters (O, H, H in order) move whole, so no bond is strained."""
    old = np.array(box.cell)
    new = old @ np.array([[1, 0, 0], [0.2, 1, 0], [-0.1, 0.15, 1]])
    oxygen = box.positions[::3]
    move = (oxygen @ np.linalg.inv(old)) @ (new - old)
    moved = Atoms(box.numbers, np.round(box.positions + np.repeat(move, 3, axis=0), 6), cell=new, pbc=True)
    return moved


def write_parity(
    path: Path, model_name: str, model: PaiNN, offsets: dict[int, float], structures: dict[str, Atoms]
) -> None:
    """Answers of the exported float32 weights, computed in float64."""
    double = PaiNN(**_sizes(model)).double()
    double.load_state_dict({k: v.to("cpu", torch.float32).double() for k, v in model.state_dict().items()})
    double.requires_grad_(False)
    cases = [parity_case(name, double, offsets, atoms) for name, atoms in structures.items()]
    note = (
        "The exported float32 weights cast to float64; pairs counted over all periodic images (r < cutoff), forces by "
        "autograd, strain_derivative = dE/d(strain) for a symmetric strain e applied as r -> r(1 + e)."
    )
    text = json.dumps(
        {"model": model_name, "note": note, "units": {"energy": "eV", "length": "angstrom"}, "cases": cases}
    )
    path.write_text(text + "\n")


def _sizes(model: PaiNN) -> dict:
    r = model.representation
    return {
        "features": r.features,
        "interactions": len(r.interactions),
        **r.radial_basis.size(),
        "cutoff": r.cutoff,
        "readout": model.output_modules[0].outnet[0].out_features,
        "epsilon": r.mixing[0].epsilon,
    }
