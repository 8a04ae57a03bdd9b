"""Reads trajectories as their users will and compares them with what was written.

    check_h5md.py FILE EXPECTED.json [FILE EXPECTED.json]...

h5py checks units, types, links and every number; MDAnalysis opens the file without a topology. The JSON holds arrays
by frame, in the file's units (null where the file must have nothing): positions, velocities, forces, edges, time,
step, observables {name: numbers}; by atom: numbers, masses; and boundary, double, log {column: numbers}.
"""

import json
import sys

import h5py
import MDAnalysis
import numpy as np
from MDAnalysis.lib.mdamath import triclinic_box

UNITS = {
    "position": "Angstrom",
    "velocity": "Angstrom ps-1",
    "force": "kJ mol-1 Angstrom-1",
    "box/edges": "Angstrom",
}
OBSERVABLE_UNITS = {
    "potential_energy": "kJ mol-1",
    "kinetic_energy": "kJ mol-1",
    "total_energy": "kJ mol-1",
    "temperature": "K",
}
LOG_UNITS = {
    "step": None,
    "time": "ps",
    "kinetic": "eV",
    "potential": "eV",
    "total": "eV",
    "conserved": "eV",
    "temperature": "K",
    "drift": "eV",
    "list_rebuilds": None,
}


def close(found, expected, tolerance):
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert np.all(np.abs(found - expected) <= tolerance * np.maximum(1, np.abs(expected))), (found, expected)


def check_with_h5py(path, expected):
    single = 1e-14 if expected["double"] else 1e-7
    with h5py.File(path, "r") as file:
        assert list(file["h5md"].attrs["version"]) == [1, 1]
        for group, name in [("author", "name"), ("creator", "name"), ("creator", "version")]:
            assert h5py.check_string_dtype(file["h5md"][group].attrs.get_id(name).dtype).length is not None
        assert list(file["particles"]) == ["trajectory"]
        particles = file["particles/trajectory"]
        step, time = particles["position/step"], particles["position/time"]
        assert step.dtype == np.int64 and time.dtype == np.float64
        assert list(step) == expected["step"]
        close(time, expected["time"], 1e-14)
        assert time.attrs["unit"] == "ps"

        for name, key in [
            ("position", "positions"),
            ("velocity", "velocities"),
            ("force", "forces"),
            ("box/edges", "edges"),
        ]:
            if expected[key] is None:
                assert name not in particles, name
                continue
            group = particles[name]
            assert group["step"] == step and group["time"] == time, f"{name} has its own steps"
            value = group["value"]
            assert value.attrs["unit"] == UNITS[name] and isinstance(value.attrs["unit"], str)
            rows = 3 if name == "box/edges" else len(expected["numbers"])
            assert value.shape == (len(expected["step"]), rows, 3)
            values = np.reshape(expected[key], value.shape)
            if name == "box/edges":
                assert value.dtype == np.float64
                close(value, values, 1e-14)
            else:
                assert value.dtype == (np.float64 if expected["double"] else np.float32)
                close(value, values, single)

        assert particles["box"].attrs["dimension"] == 3
        assert [text.decode() for text in particles["box"].attrs["boundary"]] == expected["boundary"]
        assert list(particles["species"]) == expected["numbers"]
        assert list(particles["id"]) == list(range(1, len(expected["numbers"]) + 1))
        close(particles["mass"], expected["masses"], 0)

        assert sorted(file["observables"]) == sorted(OBSERVABLE_UNITS)
        for name, unit in OBSERVABLE_UNITS.items():
            group = file["observables"][name]
            assert group["step"] == step and group["time"] == time
            assert group["value"].attrs["unit"] == unit
            close(group["value"], expected["observables"][name], 1e-14)

        tables = file["parameters/vmd_structure"]
        species = sorted(set(expected["numbers"]))
        assert list(tables["indexOfSpecies"]) == list(tables["atomicnumber"]) == species
        assert tables["name"].dtype == tables["type"].dtype == np.dtype("S16")
        assert len(tables["name"]) == len(tables["radius"]) == len(species)

        about = file["parameters/verlet"].attrs
        for name, value in expected["about"].items():
            assert about[name] == value, name
        log = file["parameters/verlet/energy"]
        assert sorted(log) == sorted(LOG_UNITS)
        for name, unit in LOG_UNITS.items():
            assert log[name].attrs.get("unit") == unit
            close(log[name], expected["log"][name], 1e-14)


def check_with_mdanalysis(path, expected):
    universe = MDAnalysis.Universe(path)
    assert universe.atoms.n_atoms == len(expected["numbers"])
    trajectory = universe.trajectory
    assert len(trajectory) == len(expected["step"])
    assert trajectory.units["time"] == "ps" and trajectory.units["length"] == "Angstrom"
    for k in range(0, len(trajectory), 1 + len(trajectory) // 100):
        frame = trajectory[k]
        assert frame.data["step"] == expected["step"][k]
        assert abs(frame.time - expected["time"][k]) <= 1e-14 * abs(frame.time)
        close(frame.positions, expected["positions"][k], 1e-7)
        # MDAnalysis counts in Angstrom/ps and kJ/(mol Angstrom) itself.
        assert frame.has_velocities == (expected["velocities"] is not None)
        if frame.has_velocities:
            close(frame.velocities, expected["velocities"][k], 1e-6)
        assert frame.has_forces == (expected["forces"] is not None)
        if frame.has_forces:
            close(frame.forces, expected["forces"][k], 1e-6)
        if expected["edges"] is None:
            assert frame.dimensions is None
        else:
            close(frame.dimensions, triclinic_box(*expected["edges"][k]), 1e-6)
        for name, values in expected["observables"].items():
            close(frame.data[name], values[k], 1e-14)


def main():
    arguments = sys.argv[1:]
    for path, expected in zip(arguments[::2], arguments[1::2], strict=True):
        with open(expected) as file:
            expected = json.load(file)
        check_with_h5py(path, expected)
        # MDAnalysis has no trajectories without frames.
        if expected["step"]:
            check_with_mdanalysis(path, expected)
        print(f"{path}: {len(expected['step'])} frames as expected")


if __name__ == "__main__":
    main()
