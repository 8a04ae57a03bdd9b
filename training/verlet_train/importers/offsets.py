"""What SchNetPack's postprocessors add to a network's energy, or multiply it by."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .network import Refused
from .node import Node


@dataclass
class Offsets:
    """The energy is scale · (the network's energy) + Σ over atoms of (mean + reference of the element)."""

    scale: float = 1.0
    mean: float = 0.0
    references: torch.Tensor | None = None  # float64, by atomic number
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: Node, energy: str) -> Offsets:
        """Goes through the postprocessors in their order; `energy` is the key of the network's energy."""
        self = cls()
        steps = model.entries("postprocessors")
        if not model.get("do_postprocessing", True):
            if steps:
                self.notes.append(
                    "do_postprocessing is false in this model, so its postprocessors are left out, with the energy "
                    "offsets in them"
                )
            return self
        derivatives = {
            output.get(key): 1.0
            for output in model.entries("output_modules")
            if output.is_a("schnetpack.Forces")
            for key, on in [("force_key", "calc_forces"), ("stress_key", "calc_stress")]
            if output.get(on)
        }
        for step in steps:
            if step.is_a("schnetpack.CastTo64", "schnetpack.CastTo32", "schnetpack.CastMap"):
                continue  # verlet adds offsets in float64 whatever the network's precision
            step.expect("schnetpack.AddOffsets", "schnetpack.ScaleProperty")
            if step.is_a("schnetpack.AddOffsets"):
                self._add(step, energy)
                continue
            key = step.get("input_key")
            if step.get("output_key") != key or key not in {energy, *derivatives}:
                raise Refused(f"{step.path} scales {key} into {step.get('output_key')}, which verlet cannot represent")
            factor = step.only(tensors=("scale",)).number("scale")
            if key == energy:
                self._multiply(factor)
            else:
                derivatives[key] *= factor
        for key, factor in derivatives.items():
            if abs(factor - self.scale) > 1e-6 * abs(self.scale):
                raise Refused(
                    f"the postprocessors scale the energy by {self.scale:.7g} but {key} by {factor:.7g}; verlet can "
                    "represent only one scale, since it derives forces and stress from the energy"
                )
        return self

    def _add(self, step: Node, energy: str) -> None:
        step.only(tensors=("mean", "atomref"))
        if step.get("_property") != energy:
            raise Refused(f"{step.path} adds offsets to {step.get('_property')}, which is not the energy ({energy})")
        if not step.get("is_extensive"):
            raise Refused(f"{step.path} has is_extensive = False; verlet can add offsets only for each atom")
        if step.get("add_mean"):
            self.mean += step.number("mean")
        if step.get("add_atomrefs"):
            added = step.tensor("atomref").double().flatten()
            if self.references is not None and len(added) != len(self.references):
                raise Refused(
                    f"{step.path} has atom references for {len(added)} elements, others {len(self.references)}"
                )
            self.references = added if self.references is None else self.references + added

    def _multiply(self, factor: float) -> None:
        self.scale *= factor
        self.mean *= factor
        if self.references is not None:
            self.references *= factor

    def elements(self) -> list[int] | None:
        """The elements with a reference that is not zero, or None where nothing tells them."""
        found = [] if self.references is None else torch.nonzero(self.references).flatten().tolist()
        return [z for z in found if 0 < z <= 118] or None

    def by_element(self, elements: list[int]) -> float | dict[int, float]:
        """The offset of every atom, or of each of the elements."""
        if self.references is None:
            return self.mean
        missing = [z for z in elements if z >= len(self.references)]
        if missing:
            raise Refused(f"the atom references end before the element with atomic number {missing[0]}")
        return {z: self.mean + float(self.references[z]) for z in elements}
