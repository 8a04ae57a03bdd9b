"""check_run.py FILE FRAMES ATOMS: a trajectory of `verlet run`, opened plainly and without a topology."""

import sys

import h5py
import MDAnalysis
import numpy as np

path, frames, atoms = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with h5py.File(path, "r") as file:
    trajectory = file["particles/trajectory"]
    steps = trajectory["position/step"][:]
    assert trajectory["position/value"].shape == (frames, atoms, 3)
    assert file["parameters/verlet"].attrs["title"] == "A test"
    log = file["parameters/verlet/energy"]
    total = log["kinetic"][:] + log["potential"][:]
    assert np.allclose(total, log["total"][:], rtol=0, atol=1e-9)
    masses = trajectory["mass"][:]
    kinetic_at_frames = log["kinetic"][:][np.isin(log["step"][:], steps)]
universe = MDAnalysis.Universe(path)
assert len(universe.trajectory) == frames and len(universe.atoms) == atoms
for frame, kinetic in zip(universe.trajectory, kinetic_at_frames):
    assert frame.has_positions and frame.has_velocities and frame.has_forces
    assert abs(frame.time - frame.data["step"] * 0.2e-3) < 1e-9
    # u (Å/ps)² in eV: the velocities on file carry the kinetic energy of the log
    energy = 0.5 * np.sum(masses[:, None] * frame.velocities.astype(float) ** 2) * 1.0364269656e-4
    assert abs(energy - kinetic) < 1e-5 * kinetic + 1e-9, (energy, kinetic)
assert np.allclose(universe.dimensions, [6, 7, 8, 90, 80, 70], atol=1e-4)
print(f"MDAnalysis {MDAnalysis.__version__}: {frames} frames of {atoms} atoms")
