"""What every importer makes: the network in verlet's own terms."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from ase.data import atomic_numbers, chemical_symbols

# The names under which verlet's model files know the units, and the names that users have for them.
ENERGY_UNITS = {
    "eV": ["ev"],
    "meV": ["mev"],
    "kcal/mol": ["kcal/mol"],
    "kJ/mol": ["kj/mol"],
    "hartree": ["hartree", "ha"],
    "rydberg": ["rydberg", "ry"],
}
LENGTH_UNITS = {
    "angstrom": ["angstrom", "ang", "å", "a"],
    "nm": ["nm"],
    "pm": ["pm"],
    "bohr": ["bohr", "a0"],
}


class Refused(ValueError):
    """One sentence: what cannot be imported, where it is, what would help."""


@dataclass(frozen=True)
class Choices:
    """What the user says, because the file may not: units under verlet's names, atomic numbers."""

    energy_unit: str | None = None
    length_unit: str | None = None
    elements: list[int] | None = None

    @classmethod
    def read(cls, energy_unit: str | None, length_unit: str | None, elements: str | None) -> Choices:
        """From the user's words: unit names, and element symbols separated by commas."""
        return cls(
            energy_unit=None if energy_unit is None else _unit(energy_unit, ENERGY_UNITS),
            length_unit=None if length_unit is None else _unit(length_unit, LENGTH_UNITS),
            elements=None if elements is None else _elements(elements),
        )


@dataclass
class Imported:
    """A network with its tensors under the names that verlet's model files have for them."""

    architecture: str
    features: int
    interactions: int
    cutoff: float  # in length_unit
    radial_kind: str
    radial_count: int
    readout_layers: list[int]
    energy_unit: str
    length_unit: str
    offsets: float | dict[int, float]  # in energy_unit, for every atom or by atomic number
    elements: list[int]
    provenance: str
    tensors: dict[str, torch.Tensor]
    norm_epsilon: float | None = None
    shared_filters: bool = False
    shared_interactions: bool = False
    notes: list[str] = field(default_factory=list)  # what the user should know, in sentences

    def description(self) -> dict:
        """The `config` entry of the model file."""
        if isinstance(self.offsets, dict):
            offset = {"per_element": {chemical_symbols[z]: energy for z, energy in sorted(self.offsets.items())}}
        else:
            offset = {"per_atom": self.offsets}
        description = {
            "format": "verlet-model/1",
            "architecture": self.architecture,
            "features": self.features,
            "interactions": self.interactions,
            "cutoff": self.cutoff,
            "cutoff_function": "cosine",
            "radial_basis": {"kind": self.radial_kind, "count": self.radial_count},
            "activation": "silu",
            "shared_filters": self.shared_filters,
            "shared_interactions": self.shared_interactions,
            "readout_layers": self.readout_layers,
            "units": {"energy": self.energy_unit, "length": self.length_unit},
            "energy_offset": offset,
            "elements": self.elements,
            "provenance": self.provenance,
        }
        if self.norm_epsilon is not None:
            description["norm_epsilon"] = self.norm_epsilon
        return description

    def summary(self) -> str:
        """The network in a few lines."""
        shared = [
            name for name, on in [("filters", self.shared_filters), ("interactions", self.shared_interactions)] if on
        ]
        lines = [
            f"{self.architecture}, {self.features} features, {self.interactions} layers"
            + (f" with shared {' and '.join(shared)}" if shared else ""),
            f"{self.radial_count} {self.radial_kind} radial functions, cutoff {self.cutoff:.6g} {self.length_unit}",
            (
                f"energies in {self.energy_unit}, lengths in {self.length_unit}, "
                f"elements {', '.join(chemical_symbols[z] for z in self.elements)}"
            ),
        ]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def elements_within(rows: int, wanted: list[int] | None) -> list[int]:
    """The elements that the user named, if the embedding has a row for each."""
    if wanted is None:
        raise Refused(
            "the file does not say which elements the network was trained on; give them, as in --elements H,C,O"
        )
    if wanted[-1] >= rows:
        raise Refused(f"the embedding has {rows} rows, too few for {chemical_symbols[wanted[-1]]}")
    return wanted


def _unit(name: str, units: dict[str, list[str]]) -> str:
    """verlet's name of the unit that a user calls `name`."""
    for known, names in units.items():
        if name.lower() in names:
            return known
    raise Refused(f"the unit {name} is not known; known are {', '.join(units)}")


def _elements(text: str) -> list[int]:
    """Atomic numbers, rising, of element symbols separated by commas or spaces."""
    found = set()
    for symbol in text.replace(",", " ").split():
        if not atomic_numbers.get(symbol):
            raise Refused(f"{symbol} is not the symbol of an element")
        found.add(atomic_numbers[symbol])
    if not found:
        raise Refused("no element is named; give symbols such as H,C,O")
    return sorted(found)
