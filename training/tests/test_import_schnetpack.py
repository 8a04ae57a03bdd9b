"""The importer against SchNetPack itself: its own answers, and what of it is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from engine import assert_answers, evaluate

from verlet_train.importers import Choices, Refused, import_model

networks = pytest.importorskip(
    "schnetpack_networks",
    reason="SchNetPack is not installed: pip install -e 'training[test,schnetpack]'",
    exc_type=ImportError,
)
Recipe, spa, snn, trn = networks.Recipe, networks.spa, networks.snn, networks.trn

RECIPES = {
    "64-2": Recipe(64, 2, mean=-1000.5),
    "256-5": Recipe(256, 5),
    "bessel": Recipe(64, 2, "BesselRBF", cutoff=6.0),
    "shared-filters": Recipe(32, 3, shared_filters=True),
    "shared-interactions": Recipe(32, 3, shared_interactions=True),
    "shared-everything": Recipe(32, 4, "BesselRBF", shared_filters=True, shared_interactions=True),
    "one-layer-with-shared-filters": Recipe(16, 1, shared_filters=True),
    "centered-gaussians": Recipe(16, 2, "GaussianRBFCentered", count=7),
    "deep-readout": Recipe(16, 2, readout=(4, 11), epsilon=1e-4),
    "straight-readout": Recipe(16, 2, readout=(1, None)),
    "references": Recipe(16, 2, references=True),
    "references-and-mean": Recipe(16, 2, references=True, mean=0.25),
    "scaled": Recipe(16, 2, mean=-3.0, scale=3.7),
    "kcal-bohr": Recipe(24, 2, mean=-20000.0, energy_unit="kcal/mol", length_unit="bohr"),
    "bessel-kcal-bohr": Recipe(24, 2, "BesselRBF", energy_unit="kcal/mol", length_unit="bohr", references=True),
    "hartree-nm": Recipe(24, 2, energy_unit="hartree", length_unit="nm"),
    "bessel-mev-nm": Recipe(24, 2, "BesselRBF", energy_unit="meV", length_unit="nm", shared_filters=True),
}


def imported(model, recipe, folder, elements="H,C,O"):
    saved, out = folder / "model.pt", folder / "model.safetensors"
    torch.save(model, saved)
    out.unlink(missing_ok=True)
    result = import_model(saved, out, Choices.read(recipe.energy_unit, recipe.length_unit, elements))
    return out, result


@pytest.mark.parametrize("name", RECIPES)
def test_imported_networks_give_schnetpacks_own_answers(tmp_path, engine, name):
    recipe = RECIPES[name]
    model = recipe.build(seed=len(name))
    out, result = imported(model, recipe, tmp_path, None if recipe.references else "H,C,O")
    assert (result.features, result.interactions) == (recipe.features, recipe.layers)
    assert result.shared_interactions == recipe.shared_interactions
    structures = networks.structures()
    frames = evaluate(engine, out, list(structures.values()), tmp_path)
    for frame, atoms in zip(frames, structures.values(), strict=True):
        assert_answers(frame, networks.answers(model, recipe, atoms))


def test_a_float64_network_keeps_its_digits(tmp_path, engine):
    recipe = Recipe(16, 2, "BesselRBF")
    model = recipe.build().double()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor += 1e-9 * torch.rand_like(tensor)
    out, _ = imported(model, recipe, tmp_path)
    atoms = networks.structures()["ethanol"]
    assert_answers(evaluate(engine, out, [atoms], tmp_path)[0], networks.answers(model, recipe, atoms))


def test_a_training_checkpoint_counts_with_its_own_weights(tmp_path, engine):
    import pytorch_lightning

    recipe = Recipe(16, 2, mean=-5.0)
    model = recipe.build(seed=3)
    output = networks.schnetpack.task.ModelOutput("energy", torch.nn.MSELoss(), metrics={})
    task = networks.schnetpack.task.AtomisticTask(model, [output], optimizer_args={"lr": 1e-3})
    trainer = pytorch_lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(task)
    checkpoint = trainer._checkpoint_connector.dump_checkpoint()
    expected = recipe.build(seed=4)
    checkpoint["state_dict"] = {f"model.{name}": tensor for name, tensor in expected.state_dict().items()}
    saved, out = tmp_path / "last.ckpt", tmp_path / "out.safetensors"
    torch.save(checkpoint, saved)
    import_model(saved, out, Choices.read("eV", None, "H,C,O"))
    atoms = networks.structures()["ethanol"]
    assert_answers(evaluate(engine, out, [atoms], tmp_path)[0], networks.answers(expected, recipe, atoms))


def test_elements_come_from_atom_references(tmp_path):
    recipe = Recipe(8, 1, references=True)
    assert imported(recipe.build(), recipe, tmp_path, None)[1].elements == [1, 6, 8]
    assert imported(recipe.build(), recipe, tmp_path, "H,O")[1].elements == [1, 8]


def test_postprocessors_that_are_switched_off_are_left_out(tmp_path):
    recipe = Recipe(8, 1, mean=-3.0)
    model = recipe.build()
    model.do_postprocessing = False
    _, result = imported(model, recipe, tmp_path)
    assert result.offsets == 0.0 and "do_postprocessing is false" in result.notes[0]


def _offsets(**named):
    added = trn.AddOffsets(named.pop("property", "energy"), add_mean=True, **named)
    added.mean = torch.ones(1)
    return added


def _scale(key, factor=2.0, **named):
    return trn.ScaleProperty(input_key=key, scale=torch.tensor([factor]), **named)


def _set(path, **attributes):
    def change(model):
        module = model.get_submodule(path)
        for name, value in attributes.items():
            setattr(module, name, value)

    return change


class Odd(torch.nn.Module):
    """A module of the user's own."""


def _schnet(model):
    basis, cutoff = snn.GaussianRBF(20, 5.0), snn.CosineCutoff(5.0)
    model.representation = networks.schnetpack.representation.SchNet(8, 1, basis, cutoff)


# What is done to a network of 8 features and 2 layers, where, and what the importer says of it.
_CONTEXT = "representation.interactions.1.interatomic_context_net.0"
REFUSALS = [
    (
        _set("representation", cutoff_fn=snn.MollifierCutoff(5.0)),
        r"\.cutoff_fn is a .*MollifierCutoff; .* only CosineCutoff",
    ),
    (
        _set("representation", radial_basis=Odd()),
        r"\.radial_basis is a .*Odd; verlet can represent only GaussianRBF or",
    ),
    (
        _set("representation", embedding=Odd()),
        r"representation\.embedding is a .*Odd; verlet can represent only Embedding",
    ),
    (_set("representation.embedding", max_norm=1.0), "representation.embedding has max_norm"),
    (_set("representation", electronic_embeddings=torch.nn.ModuleList([Odd()])), "electronic_embeddings.0 is a .*Odd"),
    (_set("representation", extra=Odd()), "representation has a module extra"),
    (_set("representation.filter_net", extra=torch.nn.Parameter(torch.ones(1))), "filter_net has a tensor extra"),
    (_set("representation.mixing.1", epsilon=1e-3), "representation.mixing has epsilon = "),
    (_set("representation", share_filters=True), r"filter_net.weight has the shape \[48, 20\] instead of \[24, 20\]"),
    (_set(_CONTEXT, activation=torch.nn.functional.relu), "activation torch.nn.functional.relu; .* only silu there"),
    (
        _set("representation.filter_net", activation=torch.nn.ReLU()),
        r"filter_net has the activation .*\.ReLU; .* none there",
    ),
    (_set("output_modules.0.outnet.0", activation=None), "outnet.0 has the activation none; .* only silu there"),
    (_schnet, "representation is a .*SchNet; verlet can represent only PaiNN"),
    (_set("output_modules.0", aggregation_mode="avg"), "aggregation_mode = avg"),
    (_set("output_modules.0", n_out=2), "output_modules.0 has 2 outputs an atom"),
    (_set("output_modules.1", energy_key="other"), "output_modules.1 is the derivative of other, not of energy"),
    (lambda m: m.output_modules.append(spa.Atomwise(8, output_key="charge")), "has 2 Atomwise outputs"),
    (lambda m: m.output_modules.append(spa.DipoleMoment(8)), "output_modules.2 is a .*DipoleMoment"),
    (
        lambda m: m.output_modules.append(spa.ZBLRepulsionEnergy("eV", "Ang", "zbl")),
        "output_modules.2 is a .*ZBLRepuls",
    ),
    (lambda m: m.input_modules.append(spa.StaticExternalFields([])), "input_modules.2 is a .*StaticExternalFields"),
    (lambda m: m.postprocessors.append(_offsets(is_extensive=False)), "postprocessors.1 has is_extensive = False"),
    (lambda m: m.postprocessors.append(_offsets(property="dipole")), "postprocessors.1 adds offsets to dipole"),
    (lambda m: m.postprocessors.append(_scale("energy")), "scale the energy by 2 but forces by 1"),
    (lambda m: m.postprocessors.append(_scale("energy", output_key="x")), "postprocessors.1 scales energy into x"),
    (lambda m: m.postprocessors.append(Odd()), "postprocessors.1 is a .*Odd"),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_what_verlet_cannot_represent_is_refused_by_name(tmp_path, number):
    change, words = REFUSALS[number]
    recipe = Recipe(8, 2)
    model = copy.deepcopy(recipe.build())
    change(model)
    with pytest.raises(Refused, match=words) as refusal:
        imported(model, recipe, tmp_path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "model.safetensors").exists()
