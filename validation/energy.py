"""Constant energy: the error of velocity Verlet shrinks with the square of the time step, and the energy stays."""

from __future__ import annotations

import numpy as np
import physical_validation
from engine import STRUCTURES, Engine, Failure, Run
from page import Check, Section, plt
from physical_validation.data import ObservableData, SimulationData
from scipy.stats import linregress

BOLTZMANN = 8.617333262e-5  # eV/K
#: Structure, temperature of the initial velocities (K), length of the drift run (ps).
SYSTEMS = {"ethanol": ("ethanol.xyz", 300, 20.0), "8 waters": ("water8.xyz", 200, 10.0)}
STEPS = (0.25, 0.5)  # fs
LONG_STEPS = (1.0, 2.0)  # fs: the O–H vibration takes 9 fs
CONVERGENCE_TIME = 1.0  # ps: so short that the runs of both time steps still follow the same path
CONVERGENCE_BOUND = 0.1
DRIFT_BOUND = 1.0  # kT/ns per degree of freedom

TEXT = f"""
**Fluctuation.** A symplectic integrator keeps the energy but for a fluctuation that goes with the square of the time
step (`physical_validation.integrator.convergence`): the same start, {CONVERGENCE_TIME:g} ps at {STEPS[0]} and at
{STEPS[1]} fs, an energy every femtosecond. The check is the relative deviation of the ratio of the two standard
deviations from {(STEPS[1] / STEPS[0]) ** 2:g}. A force that is not the gradient of the energy, or a potential with
jumps, breaks the law. Control: time steps of {LONG_STEPS[0]:g} and {LONG_STEPS[1]:g} fs, too long for the vibrations of
hydrogen.

**Drift.** The slope of the energy at {STEPS[1]} fs, from the means of 20 blocks, with its standard error; the check is
its size plus two errors, so that a run that proves nothing does not pass. It is no less than what the integrator makes
of a molecule that redistributes its vibrational energy: what velocity Verlet conserves differs from the energy by a
term in Δt² that depends on which vibrations are excited. Control: the same energies with a drift of twice the bound
added.
"""


def check(engine: Engine) -> Section:
    section = Section("energy", "Conservation of energy", TEXT)
    runs, controls = {}, {}
    for name, (structure, kelvin, length) in SYSTEMS.items():
        common = {
            "system.structure": str(STRUCTURES / structure),
            "dynamics.temperature": kelvin,
            "output.trajectory.interval": 1000,
        }
        for step in STEPS + LONG_STEPS:
            runs[f"nve-{name}-{step}fs"] = {
                **common,
                "dynamics.timestep": step,
                "dynamics.duration": f"{CONVERGENCE_TIME} ps",
                "output.energy.interval": max(1, round(1 / step)),
            }
        drift = {"dynamics.timestep": STEPS[1], "dynamics.duration": f"{length} ps", "output.energy.interval": 2}
        runs[f"nve-{name}-long"] = {**common, **drift}
    # A time step that is too long may as well end a run.
    for name in [name for name in runs if any(name.endswith(f"-{step}fs") for step in LONG_STEPS)]:
        controls[name] = runs.pop(name)
    done = engine.run_all(runs)
    figure, axes = plt.subplots(1, 2)
    for name in SYSTEMS:
        value, deviations = convergence({step: done[f"nve-{name}-{step}fs"] for step in STEPS})
        section.checks.append(Check(f"{name}: fluctuation against Δt²", value, CONVERGENCE_BOUND, "relative"))
        section.numbers[f"{name}: fluctuation (eV)"] = deviations
        axes[0].loglog(list(deviations), [1e3 * d for d in deviations.values()], "o-", label=name)
        try:
            wrong = {step: engine.run(f"nve-{name}-{step}fs", controls[f"nve-{name}-{step}fs"]) for step in LONG_STEPS}
            value = convergence(wrong)[0]
        except Failure:
            value = np.inf
        what = f"{name}: the same at {LONG_STEPS[0]:g} and {LONG_STEPS[1]:g} fs"
        section.checks.append(Check(what, value, CONVERGENCE_BOUND, "relative", control=True))
    for name in SYSTEMS:
        run = done[f"nve-{name}-long"]
        slope, error, kelvin = drift_of(run)
        unit = "kT/ns/dof, with two errors"
        section.checks.append(Check(f"{name}: drift", abs(slope) + 2 * error, DRIFT_BOUND, unit))
        added, error_added, _ = drift_of(run, added=2 * DRIFT_BOUND)
        what = f"{name}: with {2 * DRIFT_BOUND:g} kT/ns/dof added"
        section.checks.append(Check(what, abs(added) + 2 * error_added, DRIFT_BOUND, unit, control=True))
        length = run.log["time"][-1]
        section.notes.append(
            f"{name}, {length:g} ps: drift {slope:+.2e} ± {error:.1e} kT/ns/dof at a mean of {kelvin:.0f} K, "
            f"standard deviation of the energy {1e3 * np.std(run.log['conserved']):.3f} meV."
        )
        section.numbers[f"{name}: drift (kT/ns/dof), its error, K"] = [slope, error, kelvin]
        energy = run.log["conserved"] - run.log["conserved"][0]
        thin = slice(None, None, max(1, len(energy) // 400))
        axes[1].plot(run.log["time"][thin], 1e3 * energy[thin], lw=0.5, label=name)
    axes[0].set(xlabel="time step (fs)", ylabel="σ of the energy (meV)")
    axes[1].set(xlabel="time (ps)", ylabel="energy − first (meV)")
    axes[0].legend()
    section.figures["energy"] = figure
    return section


def convergence(runs: dict[float, Run]) -> tuple[float, dict[float, float]]:
    """physical_validation's largest deviation, and the standard deviation of the energy at each time step (eV)."""
    energies = {step: run.log["conserved"] - run.log["conserved"][0] for step, run in runs.items()}
    observables = {step: ObservableData(constant_of_motion=energy) for step, energy in energies.items()}
    data = [SimulationData(dt=step, observables=observed) for step, observed in observables.items()]
    value = physical_validation.integrator.convergence(data, verbose=False)
    return value, {step: np.std(energy) for step, energy in energies.items()}


def drift_of(run: Run, added: float = 0.0) -> tuple[float, float, float]:
    """Slope of the energy and its standard error in kT/ns per degree of freedom, and the mean temperature in K."""
    log = run.log
    kelvin = log["temperature"].mean()
    # The centre of mass is at rest: 3N − 3 degrees of freedom.
    unit = (3 * len(run.masses) - 3) * BOLTZMANN * kelvin * 1e-3  # eV/ps in one kT/ns/dof
    energy = log["conserved"] - log["conserved"][0] + added * unit * log["time"]
    times, means = ([part.mean() for part in np.array_split(values, 20)] for values in (log["time"], energy))
    fit = linregress(times, means)
    return fit.slope / unit, fit.stderr / unit, kelvin
