"""The network against SchNetPack's own answers, and against what physics demands of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from engine import assert_answers
from engine import evaluate as ask_engine
from safetensors import safe_open

from verlet_train.checkpoint import build_network
from verlet_train.config import read_config
from verlet_train.export import model_config, parity_case, write_model, write_parity
from verlet_train.neighbors import pair_list
from verlet_train.painn import BesselFunctions, PaiNN, energy_and_forces
from verlet_train.structures import molecule, pack_box, random_rotation

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
BASES = pytest.mark.parametrize(
    "small_network", [{"gaussians": 8}, {"bessel": 6}], ids=["gaussians", "bessel"], indirect=True
)
CONFIG = """
name = "tiny"
title = "a test"
seed = 1
data = "data"
elements = [1, 6, 8]
[network]
features = 16
interactions = 2
{basis}
cutoff = 4.0
readout = 8
norm_epsilon = 0.3
"""


def test_agrees_with_schnetpack():
    weights = SHARED / "models" / "painn-ethanol_1.safetensors"
    answers = SHARED / "reference" / "painn-ethanol_1.json"
    if not (weights.exists() and answers.exists()):
        pytest.skip("the reference weights and answers (../shared beside the repository) are not here")
    model = PaiNN()
    with safe_open(weights, "pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    model.double().requires_grad_(False)
    reference = json.loads(answers.read_text())
    to_ev = reference["units"]["kcal_per_mol_in_ev"]
    compared = 0
    for case in reference["cases"]:
        if case["cell_angstrom"] is not None and not all(case["pbc"]):
            continue  # slabs: the training data knows open and fully periodic systems only
        atoms = Atoms(case["atomic_numbers"], case["positions_angstrom"], cell=case["cell_angstrom"], pbc=case["pbc"])
        ours = parity_case(case["name"], model, {1: 0.0, 6: 0.0, 8: 0.0}, atoms)
        assert ours["directed_pairs"] == case["directed_pairs"]
        for key in ("atomic_network_energies_ev", "forces_ev_per_angstrom", "strain_derivative_ev"):
            np.testing.assert_allclose(to_ev * np.array(ours[key]), case[key], atol=1e-11, err_msg=case["name"])
        compared += 1
    assert compared >= 10


def evaluate(model, atoms: Atoms):
    x = torch.as_tensor(atoms.positions)
    cell = torch.as_tensor(np.array(atoms.cell)) if atoms.pbc.all() else None
    _, i, j, shift = pair_list(x[None], model.cutoff, cell)
    energies, forces = energy_and_forces(model, torch.as_tensor(atoms.numbers), x, i, j, shift)
    return float(energies.sum()), forces.numpy()


@BASES
def test_rotation_turns_the_forces_and_keeps_the_energy(small_network):
    atoms = molecule("ethanol", np.random.default_rng(1))
    turn = random_rotation(np.random.default_rng(2))
    energy, forces = evaluate(small_network, atoms)
    atoms.positions = atoms.positions @ turn.T + [3.0, -1.0, 2.0]
    turned_energy, turned_forces = evaluate(small_network, atoms)
    assert turned_energy == pytest.approx(energy, abs=1e-12)
    np.testing.assert_allclose(turned_forces, forces @ turn.T, atol=1e-11)


@BASES
@pytest.mark.parametrize("periodic", [False, True])
def test_forces_are_the_gradient_of_the_energy(small_network, periodic):
    rng = np.random.default_rng(3)
    # The box is smaller than the cutoff: atoms see several images of each other, and their own.
    atoms = pack_box({"water": 2}, 1.0, rng) if periodic else molecule("ethanol", rng)
    _, forces = evaluate(small_network, atoms)
    step = 1e-4
    for atom, axis in [(0, 0), (1, 2), (len(atoms) - 1, 1)]:
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(evaluate(small_network, moved)[0])
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-6)


@BASES
def test_an_atom_beyond_the_cutoff_is_not_felt(small_network):
    alone = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    far = alone + Atoms("O", [[9.0, 0, 0]])
    np.testing.assert_allclose(evaluate(small_network, far)[1][:3], evaluate(small_network, alone)[1], atol=1e-14)


def test_bessel_functions_are_waves_that_end_at_the_cutoff():
    values = BesselFunctions(3, 4.0)(torch.tensor([0.8, 2.0, 4.0])).numpy()
    waves = np.sin(np.outer([0.8, 2.0, 4.0], [1, 2, 3]) * np.pi / 4) / np.array([[0.8], [2.0], [4.0]])
    np.testing.assert_allclose(values, waves, atol=1e-6)


@pytest.mark.parametrize("basis", ["gaussians = 8", "bessel = 6"])
def test_the_answers_of_an_exported_network_are_its_own(tmp_path, basis):
    (tmp_path / "tiny.toml").write_text(CONFIG.format(basis=basis))
    torch.manual_seed(8)
    model = build_network(read_config(tmp_path / "tiny.toml"))
    atoms = molecule("ethanol", np.random.default_rng(1))
    write_parity(tmp_path / "parity.json", "a network", model, {1: 0.0, 6: 0.0, 8: 0.0}, {"ethanol": atoms})
    (case,) = json.loads((tmp_path / "parity.json").read_text())["cases"]
    model.double().requires_grad_(False)
    energy, forces = evaluate(model, atoms)
    assert sum(case["atomic_network_energies_ev"]) == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(case["forces_ev_per_angstrom"], forces, atol=1e-6)


@pytest.mark.parametrize("basis", ["gaussians = 8", "bessel = 6"])
def test_the_engine_gives_the_answers_of_an_exported_network(tmp_path, engine, basis):
    (tmp_path / "tiny.toml").write_text(CONFIG.format(basis=basis))
    config = read_config(tmp_path / "tiny.toml")
    torch.manual_seed(8)
    model = build_network(config)
    offsets = {1: -13.0, 6: -50.0, 8: -105.0}
    write_model(tmp_path / "a.safetensors", model, model_config(config, {"offsets": offsets, "shortest": {}}, "a test"))
    atoms = molecule("ethanol", np.random.default_rng(1))
    write_parity(tmp_path / "parity.json", "a.safetensors", model, offsets, {"ethanol": atoms})
    (case,) = json.loads((tmp_path / "parity.json").read_text())["cases"]
    (answer,) = ask_engine(engine, tmp_path / "a.safetensors", [atoms], tmp_path)
    assert_answers(answer, case)
