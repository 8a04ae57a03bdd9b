"""follow.py FILE: reads a trajectory while a run writes it; what has been read never changes."""

import sys
import time

import h5py
import numpy as np

with h5py.File(sys.argv[1], "r", swmr=True) as file:
    trajectory = file["particles/trajectory"]
    step, value = trajectory["position/step"], trajectory["position/value"]
    interval, looks, seen = None, 0, np.empty((0,))
    deadline = time.monotonic() + 50
    while looks < 10:
        assert time.monotonic() < deadline, "the file does not grow"
        # Positions last: a frame whose step is there is there in full.
        step.refresh()
        steps = step[:]
        value.refresh()
        if len(steps) <= len(seen):
            time.sleep(0.01)
            continue
        interval = interval or int(steps[1] - steps[0])
        assert np.array_equal(steps, np.arange(len(steps)) * interval), steps
        positions = value[: len(steps)]
        assert len(positions) == len(steps) and np.abs(positions).sum(axis=(1, 2)).all()
        assert np.array_equal(positions[: len(seen)], seen) if looks else True
        seen = positions
        looks += 1
print(f"followed to frame {len(seen)}")
