"""Langevin dynamics samples the canonical ensemble."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import physical_validation
from engine import Engine, Run
from page import Check, Section, plt
from physical_validation.data import EnsembleData, ObservableData, SimulationData, SystemData, TrajectoryData, UnitData
from scipy.stats import gamma, norm

KB = 8.314462618e-3  # kJ/mol/K
EV = 96.48533212331  # kJ/mol
TEMPERATURES = (300.0, 450.0)  # K
LENGTH = 100.0  # ps: random forces that are 2 % too large must show as six standard deviations
TIMESTEP = 0.25  # fs
FRICTION = 20.0  # 1/ps: velocities forget themselves within 50 fs
LOG_EVERY, FRAME_EVERY = 10.0, 50.0  # fs
HEATING = 1.0  # ps at the beginning that nobody looks at: twenty times 1/friction
#: One false alarm in a hundred validations, all checks together.
FALSE_ALARMS = 0.01
NOISE = 1.02  # the control's random forces, in units of the right ones
SEED = 5  # of physical_validation's bootstrap

TEXT = f"""
Ethanol under Langevin dynamics at {TEMPERATURES[0]:g} K and at {TEMPERATURES[1]:g} K, {LENGTH:g} ps each at {TIMESTEP}
fs, friction
{FRICTION:g} 1/ps. `physical_validation` thins the series until its members are independent and says how many standard
deviations each quantity is from what statistical mechanics asks:

- **kinetic energy**: its mean, its width, and the whole distribution (Kolmogorov–Smirnov, its p-value turned into
  standard deviations), against the gamma distribution of 3N − 3 degrees of freedom. Kinetic energies are those right
  after the heat bath, which the energy log holds;
- **equipartition**: the same for the parts of it that belong to the rotation of the molecule and to its inside. They
  come from the velocities of the frames, which are those of the full step and colder by (ωΔt/2)²: 0.3 % over the inside
  of the molecule at this time step, less than the test can see;
- **ensemble**: the ratio of the two distributions of the potential energy must go like exp(−(β₂ − β₁) U), whatever the
  potential is.

The bound leaves all checks together one false alarm in a hundred validations. Controls: the same runs judged with 3N
degrees of freedom, as if the centre of mass had not been taken out; and as runs whose random forces are 2 % too large,
that is, for temperatures that are 1/1.02² of the bath's, which is the same thing.
"""


def check(engine: Engine) -> Section:
    section = Section("ensembles", "Canonical ensembles", TEXT)
    common = {
        "dynamics.ensemble": "langevin",
        "dynamics.timestep": TIMESTEP,
        "dynamics.duration": f"{LENGTH} ps",
        "dynamics.friction": FRICTION,
        "output.energy.interval": round(LOG_EVERY / TIMESTEP),
        "output.trajectory.interval": round(FRAME_EVERY / TIMESTEP),
    }
    # Different seeds: the same random forces would make the two runs depend on each other.
    own = {f"nvt-{t:g}K": {"dynamics.temperature": t, "dynamics.seed": seed} for seed, t in enumerate(TEMPERATURES, 1)}
    runs = engine.run_all({name: common | more for name, more in own.items()})
    right = judge(runs)
    wrong_freedom = judge(runs, removed=0)
    wrong_noise = judge(runs, noise=NOISE)
    bound = norm.isf(FALSE_ALARMS / len(right) / 2)
    unit = "standard deviations"
    section.checks += [Check(what, value, bound, unit) for what, value in right.items()]
    # A control fails when one of its checks does.
    wrong = {"judged with 3N degrees of freedom": wrong_freedom, "random forces 2 % too large": wrong_noise}
    for what, values in wrong.items():
        worst = max(values, key=values.get)
        section.checks.append(Check(f"{what}: {worst}", values[worst], bound, unit, control=True))
    section.numbers = {"as it is": right, **wrong}
    for name, run in runs.items():
        mean = series(run, "temperature").mean()
        section.notes.append(f"{name.removeprefix('nvt-')}: mean temperature {mean:.1f} K.")
    section.figures["ensembles"] = figure(runs)
    return section


def judge(runs: dict[str, Run], removed: int = 3, noise: float = 1.0) -> dict[str, float]:
    """Deviations in standard deviations. `removed` degrees of freedom are taken for the centre of mass, and the random
    forces for larger than they should be by `noise`."""
    deviations: dict[str, float] = {}
    taken_for = [kelvin / noise**2 for kelvin in TEMPERATURES]
    data = [simulation(run, kelvin, removed) for run, kelvin in zip(runs.values(), taken_for, strict=True)]
    kinetic = physical_validation.kinetic_energy
    quiet = {"verbosity": 0, "bootstrap_seed": SEED}
    for kelvin, simulated in zip(TEMPERATURES, data, strict=True):
        mean, width = kinetic.distribution(simulated, **quiet)
        p_value = kinetic.distribution(simulated, strict=True, verbosity=0)
        deviations |= {
            f"{kelvin:g} K: mean of the kinetic energy": mean,
            f"{kelvin:g} K: width of the kinetic energy": width,
            f"{kelvin:g} K: distribution of the kinetic energy": norm.isf(p_value / 2),
        }
        with contextlib.redirect_stdout(io.StringIO()):
            parts = kinetic.equipartition(simulated, **quiet)
        # Translation is the centre of mass's, which rests; the first two are sums of the others.
        names = ["rotation", "inside"]
        for part, (mean, width) in zip(names, parts[-2:], strict=True):
            deviations |= {f"{kelvin:g} K: {part}, mean": mean, f"{kelvin:g} K: {part}, width": width}
    (slope,) = physical_validation.ensemble.check(*data, **quiet)
    return deviations | {"both: distributions of the potential energy": slope}


def simulation(run: Run, kelvin: float, removed: int) -> SimulationData:
    """The run in physical_validation's terms: kJ/mol, nm, ps."""
    factors = ["energy", "length", "volume", "temperature", "pressure", "time"]
    atoms = len(run.masses)
    frames = slice(round(HEATING * 1e3 / FRAME_EVERY), None)
    return SimulationData(
        units=UnitData(kb=KB, **{f"{name}_conversion": 1 for name in factors}),
        dt=TIMESTEP * 1e-3,
        system=SystemData(
            natoms=atoms,
            nconstraints=0,
            ndof_reduction_tra=removed,
            ndof_reduction_rot=0,
            mass=run.masses,
            molecule_idx=[0],
            nconstraints_per_molecule=[0],
        ),
        # The volume has no part in what is checked, but must be given.
        ensemble=EnsembleData("NVT", natoms=atoms, volume=1.0, temperature=kelvin),
        observables=ObservableData(kinetic_energy=series(run, "kinetic") * EV, potential_energy=potential(run) * EV),
        trajectory=TrajectoryData(run.frames("position")[frames] / 10, run.frames("velocity")[frames] / 10),
    )


def series(run: Run, name: str) -> np.ndarray:
    """A column of the energy log after the heating."""
    return run.log[name][run.log["time"] > HEATING]


def potential(run: Run) -> np.ndarray:
    """eV, without the thousands of eV that all atoms together have by themselves."""
    return series(run, "potential") - run.log["potential"][0]


def figure(runs: dict[str, Run]) -> plt.Figure:
    drawing, axes = plt.subplots(1, 2)
    for (name, run), kelvin, colour in zip(runs.items(), TEMPERATURES, ["C0", "C3"], strict=True):
        label = name.removeprefix("nvt-")
        kinetic = series(run, "kinetic")
        axes[0].hist(kinetic, 50, density=True, alpha=0.4, color=colour, label=label)
        grid = np.linspace(0, kinetic.max(), 200)
        shape = (3 * len(run.masses) - 3) / 2
        axes[0].plot(grid, gamma.pdf(grid, shape, scale=KB * kelvin / EV), color=colour, lw=1)
    cold, hot = (potential(run) for run in runs.values())
    # Where both have something to say.
    edges = np.linspace(np.quantile(hot, 0.02), np.quantile(cold, 0.98), 13)
    counts = [np.histogram(energies, edges)[0] / len(energies) for energies in (cold, hot)]
    centres = (edges[1:] + edges[:-1]) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(counts[1] / counts[0])
    centres, ratio = centres[np.isfinite(ratio)], ratio[np.isfinite(ratio)]
    slope = EV / KB * (1 / TEMPERATURES[0] - 1 / TEMPERATURES[1])
    axes[1].plot(centres, ratio, "o", ms=4, label="measured")
    axes[1].plot(centres, slope * (centres - centres.mean()) + ratio.mean(), lw=1, label="slope of exact ensembles")
    axes[0].set(xlabel="kinetic energy (eV)", ylabel="density (1/eV)")
    axes[1].set(xlabel="potential energy − first (eV)", ylabel="ln of the ratio, hot to cold")
    for axis in axes:
        axis.legend()
    return drawing
