"""The teacher: any ASE calculator, named in the configuration by where Python imports it from."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field

from ase import Atoms

from .problem import InputError

# GFN2-xTB energies of free atoms in their ground states (eV).
GFN2_FREE_ATOMS = {1: -10.71, 6: -48.80, 7: -70.91, 8: -102.52, 9: -125.70, 16: -85.62, 17: -121.98}


class TeacherFailed(Exception):
    """The teacher has no answer for a frame, and says why."""


@dataclass(frozen=True)
class Teacher:
    """A calculator class, or a function that returns a calculator, and its keyword arguments."""

    calculator: str = "tblite.ase.TBLite"  # import path; a module in the TOML file's folder is found too
    arguments: dict = field(default_factory=dict)
    folder: str = ""  # of the TOML file

    def make(self):
        """A new calculator. Raises InputError where there is none of that name, or it does not take the arguments."""
        where = f"[teacher] calculator = {self.calculator!r}"
        module, _, name = self.calculator.rpartition(".")
        if not module:
            raise InputError(f"{where}: write where to import it from, as in 'ase.calculators.emt.EMT'")
        if self.folder and self.folder not in sys.path:
            sys.path.append(self.folder)
        try:
            make = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise InputError(f"{where}: there is no module {error.name!r}: install it into this Python") from None
        except AttributeError:
            raise InputError(f"{where}: the module {module!r} has no {name!r}: correct the name") from None
        try:
            calculator = make(**self.arguments)
        except Exception as error:  # noqa: BLE001 somebody else's code can fail in any way
            given = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
            raise InputError(f"{where}: {name}({given}) fails with {type(error).__name__}: {error}") from None
        if not (hasattr(calculator, "get_potential_energy") and hasattr(calculator, "get_forces")):
            raise InputError(
                f"{where}: what {name} makes is no ASE calculator: name a class or function that makes one"
            )
        return calculator

    def free_atoms(self) -> dict[int, float]:
        """Energies (eV) of free atoms, where they are known."""
        known = self.calculator == "tblite.ase.TBLite" and self.arguments.get("method") == "GFN2-xTB"
        return GFN2_FREE_ATOMS if known else {}


GFN2 = Teacher(arguments={"method": "GFN2-xTB", "verbosity": 0})


def ask(atoms: Atoms):
    """Energy (eV) and forces [N, 3] (eV/Å) of the atoms' calculator. Raises TeacherFailed, whatever the calculator did.

    The energy is the one whose derivative the forces are: with smeared occupations that is the free energy.
    """
    try:
        consistent = "free_energy" in getattr(atoms.calc, "implemented_properties", ())
        energy = atoms.get_potential_energy(force_consistent=consistent)
        return energy, atoms.get_forces()
    except Exception as error:  # noqa: BLE001 somebody else's code can fail in any way
        if hasattr(atoms.calc, "reset"):
            atoms.calc.reset()
        raise TeacherFailed(f"{type(error).__name__}: {error}") from None
