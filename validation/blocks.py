"""What the means of consecutive blocks tell of correlated samples: a slope, a mean, and their errors."""

from __future__ import annotations

import numpy as np
from scipy.stats import linregress

BOLTZMANN = 8.617333262e-5  # eV/K
BLOCKS = 20
#: Those of `verlet run`'s verdict; src/analysis/drift.rs says why.
VERDICT_BLOCKS, VERDICT_MARGIN = 10, 6.4


def in_blocks(time: np.ndarray, energy: np.ndarray) -> tuple[list, list]:
    """Means of the blocks' times, and of their energies less the first one."""
    columns = (time, energy - energy[0])
    times, means = ([float(part.mean()) for part in np.array_split(column, BLOCKS)] for column in columns)
    return times, means


def drift(time: np.ndarray, energy: np.ndarray, kelvin: float, freedom: int, added: float = 0.0) -> tuple[float, float]:
    """Slope and its standard error in kT/ns per degree of freedom, from the means of blocks; ps and eV. `added`: a drift to be found.

    For an energy that does not wander over more than a block.
    """
    unit = freedom * BOLTZMANN * kelvin * 1e-3  # eV/ps in one kT/ns/dof
    fit = linregress(*in_blocks(time, energy + added * unit * time))
    return fit.slope / unit, fit.stderr / unit


def walk(time: np.ndarray, energy: np.ndarray) -> float:
    """How far an energy walks in one ps, eV: the root of its variance over a block, by the root of the block's time.

    Of a walk with the variance s² over a block, means of neighbouring blocks differ by 2/3 s².
    """
    times, means = in_blocks(time, energy)
    steps = np.diff(means) - linregress(times, means).slope * np.diff(times)
    block = (time[-1] - time[0]) / BLOCKS
    return float(np.sqrt(3 / 2 * (steps**2).sum() / (BLOCKS - 2) / block))


def wandering_drift(
    time: np.ndarray, energy: np.ndarray, kelvin: float, freedom: int, added: float = 0.0
) -> tuple[float, float]:
    """As `drift`, for an energy that takes a random walk: its steps are new ones, but it never comes back.

    So does the shadow energy where the network bends within a time step. The line through the means of N blocks has a slope with the
    variance 6/5 N s² over the square of the whole time; see `walk`.
    """
    unit = freedom * BOLTZMANN * kelvin * 1e-3
    energy = energy + added * unit * time
    slope = linregress(*in_blocks(time, energy)).slope
    error = np.sqrt(6 / 5 / (time[-1] - time[0])) * walk(time, energy)
    return float(slope / unit), float(error / unit)


def verdict_drift(
    time: np.ndarray, energy: np.ndarray, kelvin: float, freedom: int, added: float = 0.0
) -> tuple[float, float]:
    """Slope and its margin as `verlet run` prints them: for an energy that may wander for as long as the run."""
    unit = freedom * BOLTZMANN * kelvin * 1e-3  # eV/ps in one kT/ns/dof
    values = energy - energy[0] + added * unit * time
    # The same blocks as those of the program.
    ends = np.arange(VERDICT_BLOCKS + 1) * len(time) // VERDICT_BLOCKS
    times, means = (np.add.reduceat(column, ends[:-1]) / np.diff(ends) for column in (time, values))
    slope = linregress(times, means).slope
    steps = np.diff(means) - slope * np.diff(times)
    scatter = np.sqrt((steps**2).sum() / (VERDICT_BLOCKS - 2))
    error = scatter * np.sqrt(VERDICT_BLOCKS - 1) / (times[-1] - times[0])
    return float(slope / unit), float(VERDICT_MARGIN * error / unit)


def mean_of_blocks(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error of what is correlated over less than a block. Raises ValueError where blocks are empty."""
    if len(values) < BLOCKS:
        raise ValueError(f"{len(values)} samples make no {BLOCKS} blocks: run for longer")
    means = np.array([part.mean() for part in np.array_split(values, BLOCKS)])
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(BLOCKS))
