"""Energies, forces and strain derivatives against the programs that the networks come from."""

from __future__ import annotations

import json
from pathlib import Path

import ase.data
import ase.io
import numpy as np
from engine import MODEL, ROOT, Engine
from page import Check, Section

#: Bounds by precision: energy (eV an atom); forces and strain derivative an atom (eV/Å, eV), in float32 relative to
#: 1 + the largest force. tests/reference.rs has the same.
BOUNDS = {"f64": (1e-9, 1e-8), "f32": (2e-6, 2e-5)}
QUANTITIES = ("energy", "force", "strain derivative")
UNITS = {"energy": "eV/atom", "force": "eV/Å", "strain derivative": "eV/atom"}

TEXT = """
`verlet evaluate` on the structures of a parity file: molecules, rattled ones, clusters, boxes, triclinic and slab
cells, cells smaller than the cutoff. The answers in the file are float64 answers of the program that the network was
trained with. f64 is float64 with exact radial filters, f32 is what a run computes: float32 with tabulated filters, its
forces and strain derivatives relative to 1 eV/Å plus the largest force. Reference answers that are not in the
repository are used where they lie in `../shared`. Control: the float32 answers held to the bounds of float64.
"""


def check(engine: Engine) -> Section:
    section = Section("parity", "Parity with the networks' own programs", TEXT)
    for model, reference in references():
        cases = json.loads(reference.read_text())["cases"]
        folder = engine.scratch / f"parity-{model.stem}"
        folder.mkdir(parents=True)
        write(folder / "cases.xyz", cases)
        worst = {}
        for precision in BOUNDS:
            engine.evaluate(model, folder / "cases.xyz", folder / f"{precision}.xyz", precision)
            answers = ase.io.read(folder / f"{precision}.xyz", ":")
            pairs = zip(cases, answers, strict=True)
            found = np.array([deviations(case, atoms, precision) for case, atoms in pairs])
            worst[precision] = dict(zip(QUANTITIES, found.max(axis=0), strict=True))
            names = {case["name"]: list(row) for case, row in zip(cases, found, strict=True)}
            section.numbers[f"{model.stem} {precision}: {', '.join(QUANTITIES)}"] = names
        for precision, held_to in [("f64", "f64"), ("f32", "f32"), ("f32", "f64")]:
            energy, force = BOUNDS[held_to]
            for quantity, value in worst[precision].items():
                bound = energy if quantity == "energy" else force
                control = precision != held_to
                # A network without periodic cases has no strain derivatives to compare.
                if value == 0.0 and quantity == "strain derivative":
                    continue
                if control and quantity != "force":
                    continue
                what = f"{model.stem}, {len(cases)} cases, {precision}: {quantity}"
                section.checks.append(Check(what, value, bound, UNITS[quantity], control=control))
    return section


def references() -> list[tuple[Path, Path]]:
    """Models with their answers: our own, and those beside the repository."""
    shared = ROOT.parent / "shared"
    found = [(MODEL, MODEL.with_suffix(".parity.json"))]
    for reference in sorted((shared / "reference").glob("*.json")):
        model = shared / "models" / f"{reference.stem}.safetensors"
        if model.exists():
            found.append((model, reference))
    return found


def write(path: Path, cases: list[dict]) -> None:
    """Extended XYZ with every digit; ASE writes eight."""
    lines = []
    for case in cases:
        comment = "Properties=species:S:1:pos:R:3"
        if case["cell_angstrom"] is not None:
            flags = " ".join("T" if periodic else "F" for periodic in case["pbc"])
            edges = " ".join(repr(x) for row in case["cell_angstrom"] for x in row)
            comment += f' Lattice="{edges}" pbc="{flags}"'
        lines += [str(len(case["atomic_numbers"])), comment]
        for number, position in zip(case["atomic_numbers"], case["positions_angstrom"], strict=True):
            lines.append(" ".join([ase.data.chemical_symbols[number], *(repr(x) for x in position)]))
    path.write_text("\n".join(lines) + "\n")


def deviations(case: dict, atoms: ase.Atoms, precision: str) -> tuple[float, float, float]:
    """Of energy, forces and strain derivative; zero for a strain derivative that is not there."""
    reference = np.array(case["forces_ev_per_angstrom"])
    scale = 1 + (np.abs(reference).max() if precision == "f32" else 0)
    energy = abs(atoms.get_potential_energy() - case["total_energy_ev"]) / len(atoms)
    force = np.abs(atoms.get_forces() - reference).max() / scale
    strain = 0.0
    if atoms.pbc.any() and case.get("strain_derivative_ev") is not None:
        found = atoms.get_stress(voigt=False) * atoms.get_volume()
        strain = np.abs(found - np.array(case["strain_derivative_ev"])).max() / len(atoms) / scale
    return energy, force, strain
