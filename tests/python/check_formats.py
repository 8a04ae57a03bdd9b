"""Reads trajectories of many formats as their users will and compares them with what was written.

    check_formats.py [FILE TOPOLOGY EXPECTED.json TOLERANCE]...

The JSON holds, by frame, positions (Angstrom), velocities (Angstrom/ps) and forces (eV/Angstrom), null where the file has
none, time (ps), edges of the cell (null for none), and the atomic numbers. TOLERANCE is that of the positions.
"""

import json
import pathlib
import sys
import warnings

import ase.io
import MDAnalysis
import numpy as np
from ase.units import fs
from MDAnalysis.lib.mdamath import triclinic_box

warnings.filterwarnings("ignore")
HAVE_TIME = {".dcd", ".xtc", ".trr"}
WITHOUT_ELEMENTS = {".dcd", ".xtc", ".trr"}


def close(found, expected, tolerance):
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    error = np.max(np.abs(found - expected), initial=0)
    assert error <= tolerance, (error, tolerance)


def check_with_mdanalysis(path, topology, expected, tolerance):
    kind = path.suffix
    if kind in WITHOUT_ELEMENTS:
        universe = MDAnalysis.Universe(topology, path)
    elif kind == ".arc":
        universe = MDAnalysis.Universe(path, topology_format="TXYZ", format="TXYZ")
    else:
        universe = MDAnalysis.Universe(path)
    trajectory = universe.trajectory
    # MDAnalysis reads one frame of a GRO file.
    assert len(trajectory) == (1 if kind == ".gro" else len(expected["positions"]))
    for index, frame in enumerate(trajectory):
        close(frame.positions, expected["positions"][index], tolerance + 2e-6)
        if expected["edges"] is None:
            assert frame.dimensions is None, frame.dimensions
        elif kind != ".xyz":
            close(frame.dimensions, triclinic_box(*np.array(expected["edges"])), {".pdb": 0.0051, ".gro": 5e-4}.get(kind, 1e-4))
        if kind in HAVE_TIME:
            close(frame.time, expected["time"][index], 2e-6 * (1 + expected["time"][index]))
        if expected["velocities"] is not None and kind != ".xyz":
            close(frame.velocities, expected["velocities"][index], 0.00051 if kind == ".gro" else 1e-5)


def check_with_ase(path, expected, tolerance):
    kind = "lammps-dump-text" if path.suffix == ".lammpstrj" else None
    frames = ase.io.read(path, ":", format=kind)
    assert len(frames) == len(expected["positions"])
    for index, atoms in enumerate(frames):
        close(atoms.positions, expected["positions"][index], tolerance)
        assert list(atoms.numbers) == expected["numbers"]
        if expected["edges"] is not None:
            close(atoms.cell, expected["edges"], 1e-9)
        if expected["velocities"] is not None:
            # ASE's unit of time is √(u/eV) Å.
            close(atoms.get_velocities() * fs * 1000, expected["velocities"][index], 1e-4)
        if path.suffix == ".xyz":
            close(atoms.info["time"], expected["time"][index] * 1000, 1e-9)
            assert list(atoms.pbc) == [expected["edges"] is not None] * 3
            if expected["forces"] is not None:
                close(atoms.get_forces(), expected["forces"][index], 0)


def main():
    arguments = sys.argv[1:]
    for path, topology, expected, tolerance in zip(*[iter(arguments)] * 4, strict=True):
        path, tolerance = pathlib.Path(path), float(tolerance)
        with open(expected) as file:
            expected = json.load(file)
        # MDAnalysis wants more of a MOL2 file than atoms, and has another name for LAMMPS dumps, which ASE reads too.
        if path.suffix not in (".mol2", ".lammpstrj"):
            check_with_mdanalysis(path, topology, expected, tolerance)
        if path.suffix in (".xyz", ".lammpstrj"):
            check_with_ase(path, expected, tolerance)
        print(f"{path.name}: {len(expected['positions'])} frames as expected")


if __name__ == "__main__":
    main()
