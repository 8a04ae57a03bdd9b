"""The page of organic.py: checks, tables and figures from the reduced runs."""

from __future__ import annotations

import json
from pathlib import Path

import liquid
import molecules
import numpy as np
import page
import reduce
from blocks import BLOCKS
from page import Check, Section, plt
from scipy.stats import t

#: One false alarm in a hundred pages, shared by their dozens of temperatures.
FALSE_ALARM = 0.01
#: Part by which a temperature is wrong on purpose, to show that its check can fail.
WARMER = 0.05
LONGEST_OH = molecules.BROKEN * (molecules.RADII[1] + molecules.RADII[8])
#: S(k) of a gas without forces.
LARGEST_WAVE = 1.0

NVE = f"""
Molecules of the test set in turns from thirteen classes, none of which has its graph in a training frame, each from a frame
of GFN2-xTB dynamics at 300 K with velocities drawn at 300 K: 1000 steps of velocity Verlet at 0.5 fs. **Drift:** the slope
of the shadow energy, H̃ = H + Δt² (Ü/12 + Σ|F|²/m/24), from energies and forces of every step (along the path this is the H̃
of the long runs at constant energy, [stability.py](../stability.py)); its size and two errors must be within
{reduce.DRIFT:g} kT/ns per degree of freedom, the bound of [energy.py](../energy.py) and of `verlet run`. H itself turns with
the vibrations that are excited, and in half a picosecond its slope says little; it is in the raw numbers. Control: twice the
bound added. **Bonds** as below.
"""
LANGEVIN = f"""
Ten of these molecules, of ten classes, in a heat bath of 500 K with a friction of 5 1/ps, 0.5 fs a step, a frame every 20 fs;
some or all may share one run, 250 Å apart, so that none feels another. **Bonds:** atoms nearer than
{molecules.BONDED:g} times the sum of their covalent radii (Cordero et al., Dalton Trans. 2008, 2832) in the first frame are
bonded; none of these pairs may come to more than {molecules.BROKEN:g} times the sum in any frame, and no other pair to less
than {molecules.FORMED:g} times. Control: the last frame with one atom put beside another on purpose. **Temperature:** the
mean after {reduce.WARM_UP["langevin"]:g} ps from {BLOCKS} blocks must be 500 K within its error (all such checks of a page
together raise one false alarm in a hundred pages). Control: {WARMER:.0%} too warm. **Drift:** as at constant energy, but of the
energy less the heat that the bath gave.
"""
WATER = f"""
Periodic cubes of 64 and 512 molecules at {liquid.DENSITY} g/cm³, 300 K, friction 2 1/ps, 0.5 fs a step; the first
{reduce.WARM_UP["water"]:g} ps are left out. **Stable** means: temperature and drift as above; no O–H bond ever longer than
{LONGEST_OH:.2f} Å, {molecules.BROKEN:g} times the sum of the covalent radii; and the structure factor S(k) of
oxygen for the longest waves that fit at most that of a gas without forces, {LARGEST_WAVE:g}, far below which a liquid is and far
above which one that tears. Controls: {WARMER:.0%} too warm; the same atoms in four fifths of the box. The g(r) of oxygen has bins of {liquid.WIDTH} Å and errors from {liquid.BLOCKS} blocks; nothing judges its shape, since the force
field imitates GFN2-xTB and not water.
"""
TEACHER = """
**Beside the teacher.** GFN2-xTB (tblite) at frames of the runs above, spread over their warm part: mean absolute errors of the
student's forces per component, and of its energies about their mean offset. Test frames come from the teacher's dynamics;
these are where the student's own dynamics goes. For a run of several molecules only forces can be compared.
"""


def write(folders: list[Path], name: str, results: Path) -> int:
    runs = {}
    for folder in folders:
        one = json.loads((folder / "results.json").read_text())
        told = folder / "teacher.json"
        one["teacher"] = json.loads(told.read_text()) if told.exists() else None
        runs[one["about"]["backend"]] = one
    temperatures = sum(len(one.get(kind, {})) for one in runs.values() for kind in ("langevin", "water"))
    bound = float(t.ppf(1 - FALSE_ALARM / (2 * max(1, temperatures)), BLOCKS - 1))
    sections = []
    for backend, one in runs.items():
        label = {"cuda": "GPU", "cpu": "CPU"}[backend]
        if "nve" in one:
            sections.append(nve(backend, label, one["nve"]))
        if "langevin" in one:
            sections.append(langevin(backend, label, one["langevin"], bound))
        if "water" in one:
            sections.append(water(backend, label, one["water"], bound))
        if one["teacher"]:
            sections[-1].notes += taught(one["teacher"])
            sections[-1].numbers["teacher"] = one["teacher"]
    about = {}
    for backend, one in runs.items():
        about |= {f"{key}, {backend}" if key in ("device", "commit", "date") else key: text for key, text in one["about"].items()}
    about["backend"] = " and ".join(runs)
    about = {key: ", ".join(" ".join(line.split()) for line in text.splitlines()) for key, text in about.items()}
    date = max(one["about"]["date"] for one in runs.values())
    path = results / f"{date}-{name}-organic.md"
    page.write(path, f"Runs of {about['model']}, {date}", about, sections)
    passed = all(section.passed for section in sections)
    for section in sections:
        print(section.title, *(check.row() for check in section.checks if not check.passed), sep="\n")
    print(f"{'PASS' if passed else 'FAIL'}: {path}")
    return 0 if passed else 1


def done(section: Section, runs: dict[str, dict]) -> dict[str, dict]:
    """The runs that can be judged; the others are a check that fails, and a note each."""
    failed = {name: run for name, run in runs.items() if "failure" in run}
    section.checks.append(Check(f"{len(runs)} runs: lost", len(failed), 0, "runs"))
    section.notes += [f"Run {name} {run.get('name', '')}: {run['failure']}" for name, run in failed.items()]
    said = {line for run in runs.values() for line in run.get("said", []) if "failure" not in run}
    section.notes += [f"The engine says: {line}" for line in sorted(said)]
    section.numbers["runs"] = runs
    return {name: run for name, run in runs.items() if "atoms" in run}


def bonds(section: Section, what: str, found: list[dict]) -> None:
    longest, nearest = max(one["stretch"] for one in found), min(one["contact"] for one in found)
    section.checks.append(Check(f"{what}: longest bond", longest, molecules.BROKEN, "of the sum of radii"))
    # A check is a number that must not be above its bound: so the nearest contact stands upside down.
    formed = "1 / (sum of radii)"
    section.checks.append(Check(f"{what}: nearest atoms not bonded, inverse", 1 / nearest, 1 / molecules.FORMED, formed))


def nve(backend: str, label: str, runs: dict[str, dict]) -> Section:
    section = Section(f"nve-{backend}", f"Constant energy, {label}", NVE)
    good = done(section, runs)
    if not good:
        return section
    size = {name: abs(run["drift"][0]) + 2 * run["drift"][1] for name, run in good.items()}
    worst = max(size, key=size.get)
    unit = "kT/ns/dof, with two errors"
    section.checks.append(Check(f"{len(good)} molecules: largest drift", size[worst], reduce.DRIFT, unit))
    added = [abs(run["drift added"][0]) + 2 * run["drift added"][1] for run in good.values()]
    what = f"the least of them with {2 * reduce.DRIFT:g} kT/ns/dof added"
    section.checks.append(Check(what, min(added), reduce.DRIFT, unit, control=True))
    bonds(section, f"{len(good)} molecules", list(good.values()))
    passed = sum(run["verdict"].startswith("PASS") for run in good.values())
    hottest = max(good.values(), key=lambda run: run["kelvin"])
    section.notes += [
        f"The largest drift is that of {good[worst]['name']} ({good[worst]['family']}). `verlet run` itself, which looks at H, "
        f"says PASS {passed} times of {len(good)}. H stayed within "
        f"{1e3 * max(run['excursion'] for run in good.values()):.2g} meV an atom of its first value; mean temperatures lie "
        f"between {min(run['kelvin'] for run in good.values()):.0f} and {hottest['kelvin']:.0f} K ({hottest['name']})."
    ]
    figure, axis = plt.subplots()
    rows = sorted(good.values(), key=lambda run: (run["family"], run["name"]))
    slopes, errors = np.array([run["drift"] for run in rows]).T
    axis.errorbar(range(len(rows)), slopes, 2 * errors, fmt=".", lw=0.8)
    axis.set_yscale("symlog", linthresh=1e-2)
    axis.axhspan(-reduce.DRIFT, reduce.DRIFT, color="0.93", zorder=0)
    firsts = {run["family"]: k for k, run in reversed(list(enumerate(rows)))}
    axis.set_xticks(list(firsts.values()), list(firsts), rotation=40, ha="right")
    axis.set(ylabel="drift of H̃, two errors (kT/ns/dof)")
    section.figures[f"nve-{backend}"] = figure
    return section


def heat(section: Section, what: str, run: dict, bound: float) -> None:
    """What both kinds of runs in a heat bath owe: the temperature, and an energy that stays but for the bath's heat."""
    mean, error = run["kelvin"]
    unit = "standard errors"
    section.checks.append(Check(f"{what}: temperature from {run['wanted']:g} K", abs(mean - run["wanted"]) / error, bound, unit))
    warmer = abs(mean * (1 + WARMER) - run["wanted"]) / error
    section.checks.append(Check(f"{what}: the same {WARMER:.0%} warmer", warmer, bound, unit, control=True))
    size = abs(run["drift"][0]) + 2 * run["drift"][1]
    drift = f"{what}: drift of the energy less the bath's heat"
    section.checks.append(Check(drift, size, reduce.DRIFT, "kT/ns/dof, with two errors"))
    if run["ps"] < 0.999 * float(run["asked"].split()[0]):
        section.notes.append(f"**{what}: cut after {run['ps']:g} of {run['asked']}**, for want of time.")


def langevin(backend: str, label: str, runs: dict[str, dict], bound: float) -> Section:
    section = Section(f"langevin-{backend}", f"Langevin dynamics at 500 K, {label}", LANGEVIN)
    good = done(section, runs)
    if not good:
        return section
    figure, axis = plt.subplots()
    rows = ["| class | molecule | atoms | ps | longest bond, of the radii | of its start | nearest others |"]
    rows.append("|---|---|" + "---:|" * 5)
    every = {}
    for run in good.values():
        for name, one in run["molecules"].items():
            every[name] = one
            rows.append(
                f"| {one['family']} | {name.replace('|', '')} | {one['atoms']} | {run['ps']:g} | {one['stretch']:.2f} | "
                f"{one['growth']:.2f} | {one['contact']:.2f} |"
            )
            axis.plot(np.linspace(0, run["ps"], len(one["curve"])), one["curve"], lw=0.7, label=one["family"])
    bonds(section, f"{len(every)} molecules", list(every.values()))
    spoiled = [one["spoiled"] for one in every.values()]
    least = min(one["stretch"] for one in spoiled)
    section.checks.append(Check("the same with an atom moved: longest bond", least, molecules.BROKEN, "of the radii", control=True))
    near = min(1 / one["contact"] for one in spoiled)
    what = "the same with an atom moved: nearest, inverse"
    section.checks.append(Check(what, near, 1 / molecules.FORMED, "1 / (sum of radii)", control=True))
    for name, run in good.items():
        one = next(iter(run["molecules"])) if len(run["molecules"]) == 1 else f"{len(run['molecules'])} molecules"
        heat(section, one, run, bound)
        nearest = run["nearest molecules (Å)"]
        near = f"; the molecules never came nearer than {nearest:.0f} Å" if nearest else ""
        section.notes.append(
            f"{one}: {run['ps']:g} ps in {run['seconds']:.0f} s, {run['kelvin'][0]:.1f} ± {run['kelvin'][1]:.1f} K{near}."
        )
    section.notes.append("\n".join(rows))
    axis.axhline(molecules.BROKEN, color="0.6", lw=0.8)
    axis.set(xlabel="time (ps)", ylabel="longest bond / sum of radii")
    axis.legend(fontsize=6, ncols=3)
    section.figures[f"langevin-{backend}"] = figure
    return section


def water(backend: str, label: str, runs: dict[str, dict], bound: float) -> Section:
    section = Section(f"water-{backend}", f"Liquid water, {label}", WATER)
    good = done(section, runs)
    section.notes.append(liquid.SOURCES.strip())
    if not good:
        return section
    figure, (left, right) = plt.subplots(1, 2, width_ratios=(3, 2), figsize=(9, 3.4))
    rows = ["| | first peak (Å) | height | minimum (Å) | height | second peak (Å) | height | neighbours |"]
    rows.append("|---|" + "---:|" * 7)
    for run in good.values():
        what = f"{run['molecules']} molecules"
        heat(section, what, run, bound)
        section.checks.append(Check(f"{what}: longest O–H", run["longest O-H"], LONGEST_OH, "Å"))
        section.checks.append(Check(f"{what}: S(k) of the longest waves", run["waves"], LARGEST_WAVE, ""))
        section.checks.append(Check(f"{what}: the same in part of the box", run["waves, torn"], LARGEST_WAVE, "", control=True))
        radial = {key: np.array(run["radial"][key]) for key in ("r", "g", "error")}
        rows.append(f"| {what} | " + " | ".join(with_error(*pair) for pair in run["radial"]["shape"].values()) + " |")
        (line,) = left.plot(radial["r"], radial["g"], lw=1, label=what)
        band = (radial["g"] - 2 * radial["error"], radial["g"] + 2 * radial["error"])
        left.fill_between(radial["r"], *band, color=line.get_color(), alpha=0.3, lw=0)
        right.plot(run["curve"]["time"], 1e3 * np.array(run["curve"]["potential"]), lw=0.6, label=what)
        section.notes.append(
            f"{what}, edge {run['edge']:.3f} Å: {run['ps']:g} ps in {run['seconds']:.0f} s, {run['kelvin'][0]:.1f} ± "
            f"{run['kelvin'][1]:.1f} K, mean O–H {run['mean O-H']:.3f} Å."
        )
    for (what, found), marker in zip(liquid.EXPERIMENTS.items(), "sD", strict=True):
        cells = [with_error(*pair) for name in ("first peak", "minimum", "second peak") for pair in found.get(name, ((None,),) * 2)]
        rows.append(f"| experiment, {what} | " + " | ".join(cells) + " | |")
        (x, dx), (y, dy) = (np.array([one[k] for one in found.values()], float).T for k in (0, 1))
        left.errorbar(x, y, dy, np.nan_to_num(dx), f"k{marker}", ms=3, mfc="none", capsize=2, label=what)
    left.axhline(1, color="0.8", lw=0.6, zorder=0)
    left.set(xlabel="O–O distance (Å)", ylabel="g(r)", xlim=(2, 10))
    left.legend()
    right.set(xlabel="time (ps)", ylabel="potential − first (meV/atom)")
    section.notes.append("\n".join(rows))
    section.figures[f"water-{backend}"] = figure
    return section


def with_error(value: float | None, error: float | None = None) -> str:
    """A cell of a table; nothing where there is no value."""
    if value is None:
        return ""
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def taught(answers: dict[str, dict]) -> list[str]:
    rows = ["| system | frames | forces (meV/Å) | largest | energies (meV/atom) | offset |", "|---|" + "---:|" * 5]
    for name, one in answers.items():
        energies = f"{one['energies']:.2f} | {one['offset']:+.2f}" if "energies" in one else " | "
        title = name.removeprefix("langevin/").replace("water", "liquid water")
        rows.append(f"| {title} | {one['frames']} | {one['forces']:.1f} | {one['largest']:.0f} | {energies} |")
    return [TEACHER.strip(), "\n".join(rows)]
