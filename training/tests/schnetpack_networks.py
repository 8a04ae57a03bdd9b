"""Networks of SchNetPack with random weights, and SchNetPack's own answers for them in float64.

Run as a program, it writes the files in ../../tests/data, which the engine's tests compare themselves with, and those
in data/, SchNetPack's own files of the same networks: `python schnetpack_networks.py`.
"""

from __future__ import annotations

import copy
import json
import typing
from dataclasses import dataclass
from pathlib import Path

import ase.units
import numpy as np
import torch
import torch.utils.data.dataloader
from ase import Atoms
from ase.build import molecule

if not hasattr(torch.utils.data.dataloader, "T_co"):
    # SchNetPack 2.1 annotates with a type variable that newer releases of PyTorch have renamed.
    torch.utils.data.dataloader.T_co = typing.TypeVar("T_co", covariant=True)

import schnetpack
import schnetpack.atomistic as spa
import schnetpack.nn as snn
import schnetpack.transform as trn
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import NeuralNetworkPotential
from schnetpack.representation import PaiNN

REFERENCES = {1: -13.6, 6: -1029.75, 8: -2042.125}  # energies of free atoms, round in float32

ENERGY_UNITS = {"eV": 1.0, "kcal/mol": ase.units.kcal / ase.units.mol, "hartree": ase.units.Hartree, "meV": 1e-3}
LENGTH_UNITS = {"angstrom": 1.0, "bohr": ase.units.Bohr, "nm": ase.units.nm}


@dataclass
class Recipe:
    """A network: sizes, switches and units. The cutoff is in Å."""

    features: int
    layers: int
    basis: str = "GaussianRBF"
    count: int = 20
    cutoff: float = 5.0
    shared_filters: bool = False
    shared_interactions: bool = False
    readout: tuple[int, int | None] = (2, None)  # layers, and width of the hidden ones
    epsilon: float = 1e-8
    mean: float | None = None
    references: bool = False
    scale: float | None = None
    energy_unit: str = "eV"
    length_unit: str = "angstrom"

    def build(self, seed: int = 1) -> NeuralNetworkPotential:
        torch.manual_seed(seed)
        cutoff = self.cutoff / LENGTH_UNITS[self.length_unit]
        representation = PaiNN(
            self.features,
            self.layers,
            getattr(snn, self.basis)(self.count, cutoff),
            snn.CosineCutoff(cutoff),
            shared_interactions=self.shared_interactions,
            shared_filters=self.shared_filters,
            epsilon=self.epsilon,
        )
        energy = spa.Atomwise(self.features, n_layers=self.readout[0], n_hidden=self.readout[1], output_key="energy")
        model = NeuralNetworkPotential(
            representation,
            [spa.Strain(), spa.PairwiseDistances()],
            [energy, spa.Forces(calc_stress=True)],
            self._postprocessors(),
        )
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if name.endswith("bias"):  # all zero in a fresh network: a mistake with them would not show
                    tensor.normal_(0, 0.1)
        return model.eval()

    def _postprocessors(self) -> list[torch.nn.Module]:
        steps = [trn.CastTo64()]
        if self.scale is not None:
            keys = ("energy", "forces", "stress")
            steps += [trn.ScaleProperty(input_key=key, scale=torch.tensor([self.scale])) for key in keys]
        if self.mean is not None or self.references:
            offsets = trn.AddOffsets("energy", add_mean=self.mean is not None, add_atomrefs=self.references)
            offsets.mean = torch.tensor([self.mean or 0.0], dtype=torch.float64)
            for z, energy in REFERENCES.items():
                offsets.atomref[z] = energy
            steps.append(offsets)
        return steps


def structures() -> dict[str, Atoms]:
    """Ethanol alone; in a slab; and water in a triclinic cell that is smaller than the cutoff."""
    rng = np.random.default_rng(5)
    ethanol = molecule("CH3CH2OH")
    ethanol.positions += rng.normal(0, 0.08, (len(ethanol), 3))
    slab = ethanol.copy()
    slab.set_cell([5.5, 6.0, 20.0])
    slab.pbc = (True, True, False)
    water = molecule("H2O")
    water = water + Atoms("OH2", water.positions[:, [2, 0, 1]] + [1.9, 1.8, 2.0])
    water.positions += rng.normal(0, 0.05, (len(water), 3))
    water.set_cell([[3.9, 0, 0], [0.6, 4.1, 0], [-0.4, 0.7, 4.4]])
    water.pbc = True
    found = {"ethanol": ethanol, "ethanol-slab": slab, "water-triclinic": water}
    for atoms in found.values():
        atoms.positions = atoms.positions.round(6)  # so that a text file holds them exactly
    return found


def answers(model: NeuralNetworkPotential, recipe: Recipe, atoms: Atoms) -> dict:
    """What SchNetPack computes in float64 with the float32 weights, in eV and Å, as a case of a parity file."""
    double = copy.deepcopy(model).double()
    energy_unit, length_unit = ENERGY_UNITS[recipe.energy_unit], LENGTH_UNITS[recipe.length_unit]
    scaled = Atoms(atoms.numbers, atoms.positions / length_unit, cell=np.array(atoms.cell) / length_unit, pbc=atoms.pbc)
    cutoff = float(double.representation.cutoff_fn.cutoff)
    convert = AtomsConverter(trn.ASENeighborList(cutoff), dtype=torch.float64)
    inputs = convert(scaled)
    of_atoms = []
    hook = double.output_modules[0].outnet.register_forward_hook(
        lambda _module, _inputs, y: of_atoms.append(y.detach())
    )
    results = double(inputs)
    hook.remove()
    network = energy_unit * of_atoms[0].flatten() * (recipe.scale or 1.0)
    strain = None
    if atoms.pbc.any():
        volume = float(torch.linalg.det(inputs[schnetpack.properties.cell].detach()).abs())
        strain = (results["stress"][0].detach() * volume * energy_unit).tolist()
    return {
        "atomic_numbers": atoms.numbers.tolist(),
        "positions_angstrom": atoms.positions.tolist(),
        "cell_angstrom": np.array(atoms.cell).tolist() if atoms.pbc.any() else None,
        "pbc": atoms.pbc.tolist(),
        "directed_pairs": len(inputs[schnetpack.properties.idx_i]),
        "network_energy_ev": float(network.sum()),
        "total_energy_ev": float(results["energy"]) * energy_unit,
        "atomic_network_energies_ev": network.tolist(),
        "forces_ev_per_angstrom": (results["forces"].detach() * energy_unit / length_unit).tolist(),
        "strain_derivative_ev": strain,
    }


# The networks whose files are kept.
KEPT = {
    "painn-bessel": Recipe(12, 3, "BesselRBF", count=10, shared_filters=True, mean=-2.5, references=True),
    "painn-bohr": Recipe(
        10, 2, "BesselRBF", count=8, cutoff=4.5, shared_interactions=True, readout=(3, 6), mean=-310.25,
        energy_unit="kcal/mol", length_unit="bohr",
    ),
}  # fmt: skip


def main() -> None:
    from verlet_train.importers import Choices, import_model

    here = Path(__file__).resolve().parent
    for name, recipe in KEPT.items():
        model = recipe.build()
        saved, made = here / "data" / f"{name}.pt", here.parents[1] / "tests/data" / f"{name}.safetensors"
        torch.save(model, saved)
        made.unlink(missing_ok=True)
        import_model(saved, made, Choices.read(recipe.energy_unit, recipe.length_unit, "H,C,O"))
        cases = [{"name": key} | answers(model, recipe, atoms) for key, atoms in structures().items()]
        note = (
            f"SchNetPack {schnetpack.__version__}'s own answers for the float32 weights in float64; strain_derivative "
            "= dE/d(strain) = its stress times the volume."
        )
        text = json.dumps({"model": made.name, "note": note, "cases": cases})
        made.with_suffix(".parity.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
