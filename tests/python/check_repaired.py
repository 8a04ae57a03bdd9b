"""check_repaired.py FOLDER: every repaired-*.h5md opens plainly and begins as whole/trajectory.h5md does."""

import pathlib
import sys
import warnings

import h5py
import MDAnalysis
import numpy as np

warnings.filterwarnings("ignore")
folder = pathlib.Path(sys.argv[1])


def series(path):
    """All datasets that grow, by name."""
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, node: found.__setitem__(name, node[:])
            if isinstance(node, h5py.Dataset) and node.maxshape[:1] == (None,)
            else None
        )
    return found


whole = series(folder / "whole/trajectory.h5md")
paths = sorted(folder.glob("repaired-*.h5md"))
frames_seen = 0
for path in paths:
    found = series(path)
    assert found.keys() == whole.keys(), path
    log = {len(values) for name, values in found.items() if "/energy/" in name}
    frames = {len(values) for name, values in found.items() if "/energy/" not in name}
    assert len(log) == 1 and len(frames) == 1, (path, log, frames)
    for name, values in found.items():
        assert np.array_equal(values, whole[name][: len(values)]), (path, name)
    (frames,) = frames
    universe = MDAnalysis.Universe(str(path))
    assert len(universe.trajectory) == frames
    positions = found["particles/trajectory/position/value"]
    for frame, expected in zip(universe.trajectory, positions):
        assert np.array_equal(frame.positions, expected.astype(np.float32))
    frames_seen += frames
print(f"{len(paths)} repaired trajectories, {frames_seen} frames")
