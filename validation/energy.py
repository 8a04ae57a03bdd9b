"""Constant energy: the error of velocity Verlet shrinks with the square of the time step, and the energy stays."""

from __future__ import annotations

import blocks
import numpy as np
import physical_validation
from engine import STRUCTURES, Engine, Failure, Run
from page import Check, Section, plt
from physical_validation.data import ObservableData, SimulationData

#: Structure, temperature of the initial velocities (K), length of the drift run (ps).
SYSTEMS = {"ethanol": ("ethanol.xyz", 300, 20.0), "8 waters": ("water8.xyz", 200, 10.0)}
STEPS = (0.25, 0.5)  # fs
LONG_STEPS = (1.0, 2.0)  # fs: the O–H vibration takes 9 fs
#: The runs of both time steps must follow the same path, else the ratio of their fluctuations is chance: that holds for
#: some hundred femtoseconds. Many starts make up for the short time.
STARTS, CONVERGENCE_TIME = 8, 0.25  # ps
CONVERGENCE_BOUND = 0.1
DRIFT_BOUND = 1.0  # kT/ns per degree of freedom

TEXT = f"""
**Fluctuation.** A symplectic integrator keeps the energy but for a fluctuation that goes with the square of the time
step (`physical_validation.integrator.convergence`): {STARTS} starts, from each {CONVERGENCE_TIME:g} ps at {STEPS[0]}
and at {STEPS[1]} fs, an energy every femtosecond, each run about its own mean. The check is the relative deviation of
the ratio of the two standard deviations from {(STEPS[1] / STEPS[0]) ** 2:g}. A force that is not the gradient of the
energy, or a potential with jumps, breaks the law. Control: time steps of {LONG_STEPS[0]:g} and {LONG_STEPS[1]:g} fs,
too long for the vibrations of hydrogen.

**Drift.** The slope of the energy at {STEPS[1]} fs with its margin, both as `verlet run` makes them for its verdict; the
check is the sum of their sizes, so that a run that proves nothing does not pass. It is no less than what the integrator makes
of a molecule that redistributes its vibrational energy: what velocity Verlet conserves differs from the energy by a
term in Δt² that depends on which vibrations are excited. Control: the same energies with a drift of twice the bound
added.
"""


def check(engine: Engine) -> Section:
    section = Section("energy", "Conservation of energy", TEXT)
    figure, (left, right) = plt.subplots(1, 2)
    for name in SYSTEMS:
        fluctuation(engine, section, name, left)
    drifts = {}
    for name, (_, _, length) in SYSTEMS.items():
        more = {"dynamics.timestep": STEPS[1], "dynamics.duration": f"{length} ps", "output.energy.interval": 2}
        drifts[f"drift-{name}"] = start(name) | more
    done = engine.run_all(drifts)
    for name in SYSTEMS:
        drift(done[f"drift-{name}"], section, name, right)
    left.set(xlabel="time step (fs)", ylabel="σ of the energy (meV)")
    right.set(xlabel="time (ps)", ylabel="energy − first (meV)")
    left.legend()
    section.figures["energy"] = figure
    return section


def start(name: str) -> dict[str, object]:
    """The settings of all runs of a system."""
    structure, kelvin, _ = SYSTEMS[name]
    return {
        "system.structure": str(STRUCTURES / structure),
        "dynamics.temperature": kelvin,
        "output.trajectory.interval": 1000,
    }


def fluctuation(engine: Engine, section: Section, name: str, axis: plt.Axes) -> None:
    what = f"{name}: fluctuation against Δt²"
    value, deviations = convergence(all_starts(engine, name, STEPS))
    section.checks.append(Check(what, value, CONVERGENCE_BOUND, "relative"))
    section.numbers[f"{name}: fluctuation (eV) by time step (fs)"] = deviations
    axis.loglog(list(deviations), [1e3 * deviation for deviation in deviations.values()], "o-", label=name)
    try:
        value, _ = convergence(all_starts(engine, name, LONG_STEPS))
    except Failure:
        value = np.inf  # a time step that is too long may as well end a run
    what = f"{name}: the same at {LONG_STEPS[0]:g} and {LONG_STEPS[1]:g} fs"
    section.checks.append(Check(what, value, CONVERGENCE_BOUND, "relative", control=True))


def all_starts(engine: Engine, name: str, steps: tuple[float, float]) -> dict[float, list[Run]]:
    """The short runs of every start, by time step."""
    settings = {
        (step, seed): {
            "dynamics.timestep": step,
            "dynamics.seed": seed,
            "dynamics.duration": f"{CONVERGENCE_TIME} ps",
            "output.energy.interval": max(1, round(1 / step)),
        }
        for step in steps
        for seed in range(1, STARTS + 1)
    }
    runs = engine.run_all({f"{name}-{step}fs-{seed}": start(name) | more for (step, seed), more in settings.items()})
    return {step: [runs[f"{name}-{step}fs-{seed}"] for seed in range(1, STARTS + 1)] for step in steps}


def drift(run: Run, section: Section, name: str, axis: plt.Axes) -> None:
    slope, margin, kelvin = verdict_of(run)
    unit = "kT/ns/dof, with its margin"
    section.checks.append(Check(f"{name}: drift", abs(slope) + margin, DRIFT_BOUND, unit))
    added, margin_added, _ = verdict_of(run, added=2 * DRIFT_BOUND)
    what = f"{name}: with {2 * DRIFT_BOUND:g} kT/ns/dof added"
    section.checks.append(Check(what, abs(added) + margin_added, DRIFT_BOUND, unit, control=True))
    time, energy = run.log["time"], run.log["conserved"] - run.log["conserved"][0]
    section.notes.append(
        f"{name}, {time[-1]:g} ps: drift {slope:+.2e} ± {margin:.1e} kT/ns/dof at a mean of {kelvin:.0f} K, standard "
        f"deviation of the energy {1e3 * energy.std():.3f} meV."
    )
    section.numbers[f"{name}: drift (kT/ns/dof), its margin, K"] = [slope, margin, kelvin]
    thin = slice(None, None, max(1, len(energy) // 400))
    axis.plot(time[thin], 1e3 * energy[thin], lw=0.5, label=name)


def convergence(runs: dict[float, list[Run]]) -> tuple[float, dict[float, float]]:
    """physical_validation's largest deviation, and the standard deviation of the energy at each time step (eV)."""
    columns = {step: [run.log["conserved"] for run in some] for step, some in runs.items()}
    energies = {step: np.concatenate([e - e.mean() for e in some]) for step, some in columns.items()}
    observables = {step: ObservableData(constant_of_motion=energy) for step, energy in energies.items()}
    data = [SimulationData(dt=step, observables=observed) for step, observed in observables.items()]
    value = physical_validation.integrator.convergence(data, verbose=False)
    return value, {step: np.std(energy) for step, energy in energies.items()}


def drift_of(run: Run) -> tuple[float, float, float]:
    """Slope of the energy and its standard error in kT/ns per degree of freedom, and the mean temperature in K."""
    log, kelvin = run.log, run.log["temperature"].mean()
    return *blocks.drift(log["time"], log["conserved"], kelvin, freedom(run)), kelvin


def verdict_of(run: Run, added: float = 0.0) -> tuple[float, float, float]:
    """The same with the margin of `verlet run`'s verdict in place of the error."""
    log, kelvin = run.log, run.log["temperature"].mean()
    return *blocks.verdict_drift(log["time"], log["conserved"], kelvin, freedom(run), added), kelvin


def freedom(run: Run) -> int:
    """Degrees of freedom: the centre of mass is at rest."""
    return 3 * len(run.masses) - 3
