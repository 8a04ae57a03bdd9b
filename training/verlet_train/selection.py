"""Which frames of one system to take: those unlike each other, and, where two students answered, those in doubt."""

from __future__ import annotations

import numpy as np


def chosen(positions: np.ndarray, weight: np.ndarray, count: int, always: list[int] | None = None) -> list[int]:
    """`count` of the frames [K, N, 3], in their order: those in `always`, then each time that of largest weight [K]
    times distance.

    The distance is that to the nearest chosen frame, between the vectors of all inverse distances of atoms. The first
    is the one of largest weight. With equal weights this is farthest-point sampling.
    """
    upper = np.triu_indices(positions.shape[1], 1)
    apart = np.linalg.norm(positions[:, upper[0]] - positions[:, upper[1]], axis=-1)
    shape = 1 / np.maximum(apart, 0.1)  # Å: no two nuclei come nearer, so that no one pair is all
    taken = list(always or [])[:count]
    if not taken and len(positions) and count:
        taken = [int(weight.argmax())]
    nearest = np.full(len(positions), np.inf)
    for k in taken:
        nearest = np.minimum(nearest, np.linalg.norm(shape - shape[k], axis=1))
    while len(taken) < min(count, len(positions)):
        score = weight * nearest
        score[taken] = -1.0
        taken.append(int(score.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(shape - shape[taken[-1]], axis=1))
    return sorted(taken)
