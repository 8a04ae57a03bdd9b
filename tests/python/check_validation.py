"""check_validation.py: what validation/organic.py reduces its runs with, on cases whose answers are known."""

import pathlib
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "validation"))
import blocks  # noqa: E402
import liquid  # noqa: E402
import molecules  # noqa: E402
import reduce  # noqa: E402

random = np.random.default_rng(1)


def an_ideal_gas_has_no_structure():
    frames = 12.0 * random.random((96, 60, 3)) + 30.0  # anywhere: images are found
    r, g = liquid.radial(frames, 12.0)
    expected = 96 * (60 * 59 / 2) * 4 * np.pi * r**2 * liquid.WIDTH / 12.0**3
    enough = expected > 50
    assert enough.sum() > 80 and r[-1] < 6.0
    assert (np.abs(g - 1)[enough] < 5 / np.sqrt(expected[enough])).all()
    found = liquid.structure(frames, 12.0)
    assert np.abs(np.array(found["g"]) - g).max() < 1e-5
    z = (np.array(found["g"]) - 1)[enough] / np.array(found["error"])[enough]
    assert 0.6 < np.std(z) < 1.8


def a_lattice_has_six_neighbours_then_twelve():
    places = 3.01 * np.array(list(np.ndindex(4, 4, 4)), float)
    r, g = liquid.radial(places[None], 4 * 3.01)
    shells = 4 / 3 * np.pi * ((r + liquid.WIDTH / 2) ** 3 - (r - liquid.WIDTH / 2) ** 3)
    neighbours = np.cumsum(g * shells) * (64 - 1) / (4 * 3.01) ** 3
    for reach, count in ((2.9, 0), (3.2, 6), (4.4, 18), (5.5, 26)):
        assert abs(neighbours[r < reach][-1] - count) < 1e-9


def a_liquid_that_tears_is_seen():
    # A gas has S(k) = 1 with an error of 1 / √frames, a lattice 0 between its own waves.
    length = 30.0
    gas = length * random.random((2000, 64, 3))
    assert abs(liquid.waves(gas, length) - 1) < 0.1
    lattice = 3.0 * np.array(list(np.ndindex(10, 10, 10)), float)
    assert liquid.waves(lattice[None], length) < 1e-20
    # A band of that length: N (sin πa / πa)², a = 4/5.
    places = np.linspace(0, 0.8 * length, 20001)[:-1]
    band = np.stack([places, 7919 * places, 104729 * places], axis=1) % length
    assert abs(liquid.waves(band[None], length) / (20000 * (np.sin(0.8 * np.pi) / (0.8 * np.pi)) ** 2) - 1) < 1e-3
    assert liquid.waves(liquid.torn(gas, length), length) > 3


def turning_points_are_found_between_bins():
    r = np.arange(2.0, 6.0, liquid.WIDTH)
    at, height = liquid.turning_point(r, 2.57 - 4 * (r - 2.813) ** 2, (2.3, 3.3), 1)
    assert abs(at - 2.813) < 1e-9 and abs(height - 2.57) < 1e-9
    at, height = liquid.turning_point(r, 0.84 + 4 * (r - 3.461) ** 2, (2.9, 4.2), -1)
    assert abs(at - 3.461) < 1e-9 and abs(height - 0.84) < 1e-9


def a_box_has_the_density_and_whole_molecules():
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "box.xyz"
        assert liquid.box(ROOT / "inputs/structures/water64.xyz", target) == 64
        lines = target.read_text().splitlines()
    length = float(lines[1].split('"')[1].split()[0])
    grams = 64 * (15.999 + 2 * 1.008) / 6.02214076e23
    assert abs(grams / (length * 1e-8) ** 3 - 0.997) < 1e-3
    atoms = np.array([line.split()[1:] for line in lines[2:]], float).reshape(64, 3, 3)
    bonds = np.linalg.norm(atoms[:, 1:] - atoms[:, :1], axis=2)
    assert 0.85 < bonds.min() and bonds.max() < 1.15
    apart = atoms[:, None, 0] - atoms[None, :, 0]
    apart -= length * np.rint(apart / length)
    assert np.linalg.norm(apart, axis=2)[np.triu_indices(64, k=1)].min() > 2.3


def a_broken_bond_and_a_new_one_are_seen():
    water = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    frames = np.stack([water, water, water])
    frames[1, 1, 0] = 1.5
    held = molecules.bonds(np.array([8, 1, 1]), frames)
    assert np.allclose(held["stretch"][[0, 2]], np.linalg.norm(water[1:], axis=1).max() / 0.97)
    assert abs(held["stretch"][1] - 1.5 / 0.97) < 1e-12 and abs(held["growth"][1] - 1.5 / 0.96) < 1e-12
    assert held["stretch"][1] > molecules.BROKEN
    frames[2, 1] = frames[2, 2] + [0, 0, 0.62]
    assert abs(molecules.bonds(np.array([8, 1, 1]), frames)["contact"][2] - 1.0) < 1e-12


def the_picked_molecules_are_whole_and_spoiled_ones_are_not():
    picked = molecules.unseen(40)
    assert len({one.name for one in picked}) == 40 and len({one.family for one in picked}) == 13
    assert [one.name for one in picked] == [one.name for one in molecules.unseen(45)][:40]
    for one in picked:
        frames = np.stack([one.positions, one.positions])
        held, wrong = (molecules.bonds(one.numbers, some) for some in (frames, molecules.spoiled(one.numbers, frames)))
        assert held["stretch"].max() < molecules.BROKEN and held["contact"].min() > molecules.FORMED
        assert wrong["stretch"][1] > molecules.BROKEN and wrong["contact"][1] < molecules.FORMED
    hot = molecules.of_ten_classes(picked, 10)
    assert len(hot) == 10 == len({one.family for one in hot})
    centres = np.array([one.positions.mean(axis=0) for one in molecules.apart(hot, 250.0)])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2)[np.triu_indices(10, k=1)]
    assert abs(gaps.min() - 250.0) < 1e-6


def the_shadow_energy_of_an_oscillator_stays():
    """A mass on a spring by velocity Verlet: H turns with Δt², H̃ with Δt⁴."""
    stays = []
    for timestep in (0.5, 0.25):
        spring, mass, x, v, path = 30.0, 1.008, 0.1, 0.0, []
        for _ in range(int(200 / timestep)):
            path.append((0.5 * spring * x * x, -spring * x, 0.5 * mass * v * v * reduce.MASS_VELOCITY2))
            half = v - 0.5 * timestep * spring * x / (mass * reduce.MASS_VELOCITY2)
            x += timestep * half
            v = half - 0.5 * timestep * spring * x / (mass * reduce.MASS_VELOCITY2)
        potential, force, kinetic = np.array(path).T
        forces = np.stack([force, 0 * force, 0 * force], axis=1)[:, None]
        term = reduce.shadow(potential, forces, np.array([mass]), timestep)
        energy = (potential + kinetic)[1:-1]
        assert np.std(energy + term) < 0.05 * np.std(energy)
        stays.append(np.std(energy + term))
    assert 12 < stays[0] / stays[1] < 20


def slopes_and_means_come_with_their_errors():
    time = np.linspace(0, 10, 4000)
    unit = 6 * blocks.BOLTZMANN * 300 * 1e-3
    noise = random.normal(0, 1e-4, 4000)
    slope, error = blocks.drift(time, 3 * unit * time + noise, 300, 6)
    assert abs(slope - 3) < 4 * error and 0 < error < 0.1
    added, _ = blocks.drift(time, 3 * unit * time + noise, 300, 6, added=2)
    assert abs(added - slope - 2) < 1e-9
    slope, margin = blocks.verdict_drift(time, 3 * unit * time + noise, 300, 6)
    assert abs(slope - 3) < margin / 4 and 0 < margin < 1.5
    walks = [blocks.verdict_drift(time, random.normal(0, 1e-4, 4000).cumsum(), 300, 6) for _ in range(1000)]
    assert sum(abs(slope) > margin for slope, margin in walks) <= 5
    assert sum(2 * abs(slope) > margin for slope, margin in walks) >= 5
    walks = [blocks.wandering_drift(time, random.normal(0, 1e-4, 4000).cumsum(), 300, 6) for _ in range(1000)]
    slopes, errors = np.array(walks).T
    # 4000 steps in 10 ps.
    far = [blocks.walk(time, random.normal(0, 1e-4, 4000).cumsum()) for _ in range(1000)]
    assert abs(np.mean(far) / (1e-4 * np.sqrt(400)) - 1) < 0.05
    assert 0.85 < np.mean(errors) / np.std(slopes) < 1.1
    still, _ = blocks.wandering_drift(time, 3 * unit * time + noise, 300, 6, added=2)
    assert abs(still - added) < 1e-9
    mean, error = blocks.mean_of_blocks(300 + random.normal(0, 20, 4000))
    assert abs(mean - 300) < 4 * error and 0.15 < error < 0.6
    try:
        blocks.mean_of_blocks(np.zeros(19))
    except ValueError as problem:
        assert "19 samples" in str(problem)
    else:
        raise AssertionError("19 samples made 20 blocks")


an_ideal_gas_has_no_structure()
a_lattice_has_six_neighbours_then_twelve()
a_liquid_that_tears_is_seen()
turning_points_are_found_between_bins()
a_box_has_the_density_and_whole_molecules()
a_broken_bond_and_a_new_one_are_seen()
the_picked_molecules_are_whole_and_spoiled_ones_are_not()
the_shadow_energy_of_an_oscillator_stays()
slopes_and_means_come_with_their_errors()
print("validation/organic.py reduces its runs rightly")
