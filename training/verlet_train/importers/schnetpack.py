"""PaiNN networks of SchNetPack 2, as `torch.save(model)` (best_model) or its training's checkpoints hold them.

Module and tensor names are those of SchNetPack 2.0 to 2.1. What changes the answer and has no place in verlet's `painn`
is refused by the name it has in the network.
"""

from __future__ import annotations

import torch

from .network import Choices, Imported, Refused, elements_within
from .node import Node
from .offsets import Offsets
from .reading import Recorded

_FUNCTIONS = {"torch.nn.functional.silu": "silu", "torch.nn.modules.activation.SiLU": "silu"}
_RADIAL = {
    "schnetpack.GaussianRBF": ("gaussian", ("offsets", "widths")),
    # The same functions with their centres at zero and growing widths.
    "schnetpack.GaussianRBFCentered": ("gaussian", ("offsets", "widths")),
    "schnetpack.BesselRBF": ("bessel", ("freqs",)),
}


def recognises(root: object) -> bool:
    return _model(root) is not None


def _model(root: object) -> Node | None:
    """The network in a saved model, or in a checkpoint of PyTorch Lightning with the checkpoint's own weights."""
    if isinstance(root, Recorded) and root.qualified_name().startswith("schnetpack."):
        return Node(root)
    if isinstance(root, dict) and "state_dict" in root:
        model = (root.get("hyper_parameters") or {}).get("model")
        if isinstance(model, Recorded) and model.qualified_name().startswith("schnetpack."):
            prefix = "model."
            weights = {k.removeprefix(prefix): v for k, v in root["state_dict"].items() if k.startswith(prefix)}
            return Node(model, weights=weights)
    return None


def convert(root: object, choices: Choices) -> Imported:
    model = _model(root).expect("schnetpack.NeuralNetworkPotential")
    model.only(("representation", "input_modules", "output_modules", "postprocessors"))
    for module in model.entries("input_modules"):
        # Strain is zero but for its derivative, which verlet always has.
        module.expect("schnetpack.PairwiseDistances", "schnetpack.Strain")
    representation = model.child("representation").expect("schnetpack.PaiNN")
    tensors, shape = _representation(representation)
    energy = _energy(model.entries("output_modules"))
    readout, widths = _readout(energy, shape["features"])
    offsets = Offsets.of(model, energy.get("output_key"))
    # The network's energy times the scale is the energy times the scale of its last, linear layer.
    last = f"output_modules.0.outnet.{len(widths) - 2}"
    if offsets.scale != 1.0:
        for name in ("weight", "bias"):
            readout[f"{last}.{name}"] = readout[f"{last}.{name}"].double() * offsets.scale
    tensors.update(readout)
    elements = choices.elements or offsets.elements()
    elements = elements_within(len(tensors["representation.embedding.weight"]), elements)
    if choices.energy_unit is None:
        raise Refused(
            "the file does not say in which unit its energies are; give it, as in --energy-unit kcal/mol (the "
            "config.yaml of the training has it under data.property_units)"
        )
    return Imported(
        architecture="painn",
        readout_layers=widths,
        energy_unit=choices.energy_unit,
        length_unit=choices.length_unit or "angstrom",
        offsets=offsets.by_element(elements),
        elements=elements,
        provenance=f"imported from SchNetPack {model.get('spk_version', '2')}",
        tensors=tensors,
        notes=offsets.notes,
        **shape,
    )


def _representation(node: Node) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors under verlet's names, and the sizes and switches of the network."""
    node.only(
        ("cutoff_fn", "radial_basis", "embedding", "electronic_embeddings", "filter_net", "interactions", "mixing")
    )
    for embedding in node.entries("electronic_embeddings"):
        raise Refused(f"{embedding.path} is a {embedding.recorded.qualified_name()}, which verlet cannot represent")
    cutoff = node.child("cutoff_fn").expect("schnetpack.CosineCutoff").only(tensors=("cutoff",)).number("cutoff")
    basis = node.child("radial_basis").expect(*_RADIAL)
    kind, names = next(entry for name, entry in _RADIAL.items() if basis.is_a(name))
    basis.only(tensors=names)
    count = basis.tensor(names[0]).numel()
    tensors = {f"representation.radial_basis.{name}": basis.tensor(name, (count,)) for name in names}

    embedding = node.child("embedding").expect("torch.Embedding").only(tensors=("weight",))
    if embedding.get("max_norm", None) is not None:
        raise Refused("representation.embedding has max_norm, which verlet cannot represent")
    features = node.get("n_atom_basis")
    rows = embedding.tensor("weight").shape[0]
    tensors["representation.embedding.weight"] = embedding.tensor("weight", (rows, features))

    interactions, mixing = node.entries("interactions"), node.entries("mixing")
    layers = len(interactions)
    if not layers or len(mixing) != layers:
        raise Refused(f"representation has {layers} interactions and {len(mixing)} mixing blocks")
    shared_filters = bool(node.get("share_filters"))
    # One filter for one layer is a filter of its own.
    outputs = 3 * features * (1 if shared_filters else layers)
    tensors.update(dense(node.child("filter_net"), count, outputs))
    shared_filters = shared_filters and layers > 1
    shared = layers > 1 and all(
        block.recorded is blocks[0].recorded for blocks in (interactions, mixing) for block in blocks
    )
    epsilons = {float(block.expect("schnetpack.PaiNNMixing").get("epsilon")) for block in mixing}
    if len(epsilons) > 1 or min(epsilons) <= 0:
        raise Refused(f"representation.mixing has epsilon = {sorted(epsilons)}; it must be one positive number")
    for message, update in list(zip(interactions, mixing))[: 1 if shared else layers]:
        message.expect("schnetpack.PaiNNInteraction").only(("interatomic_context_net",))
        tensors.update(perceptron(message, "interatomic_context_net", [features, features, 3 * features]))
        update.only(("intraatomic_context_net", "mu_channel_mix"))
        tensors.update(perceptron(update, "intraatomic_context_net", [2 * features, features, 3 * features]))
        tensors.update(dense(update.child("mu_channel_mix"), features, 2 * features, bias=False))
    return tensors, {
        "features": features,
        "interactions": layers,
        "cutoff": cutoff,
        "radial_kind": kind,
        "radial_count": count,
        "shared_filters": shared_filters,
        "shared_interactions": shared,
        "norm_epsilon": epsilons.pop(),
    }


def _energy(outputs: list[Node]) -> Node:
    """The one output that is the energy; Forces beside it are its derivative, which verlet has anyway."""
    energies = [module for module in outputs if module.is_a("schnetpack.Atomwise")]
    for module in outputs:
        if not module.is_a("schnetpack.Atomwise", "schnetpack.Forces"):
            raise Refused(f"{module.path} is a {module.recorded.qualified_name()}, which verlet cannot represent")
    if len(energies) != 1:
        raise Refused(f"the model has {len(energies)} Atomwise outputs; verlet can represent only one, the energy")
    energy = energies[0]
    for module in outputs:
        if module is not energy and module.get("energy_key") != energy.get("output_key"):
            raise Refused(
                f"{module.path} is the derivative of {module.get('energy_key')}, not of {energy.get('output_key')}"
            )
    if energy.get("aggregation_mode") != "sum":
        raise Refused(f"{energy.path} has aggregation_mode = {energy.get('aggregation_mode')}; verlet knows only sum")
    if energy.get("n_out") != 1:
        raise Refused(
            f"{energy.path} has {energy.get('n_out')} outputs an atom (n_out); verlet knows only 1, its energy"
        )
    return energy.only(("outnet",))


def _readout(energy: Node, features: int) -> tuple[dict[str, torch.Tensor], list[int]]:
    layers = energy.entries("outnet")
    widths = [features, *(layer.tensor("weight").shape[0] for layer in layers)]
    found = perceptron(energy, "outnet", widths)
    # verlet calls the output 0 wherever it stood in the list.
    return {name.replace(energy.path, "output_modules.0", 1): tensor for name, tensor in found.items()}, widths


def perceptron(node: Node, name: str, widths: list[int]) -> dict[str, torch.Tensor]:
    """A Sequential of dense layers with SiLU between them."""
    layers = node.entries(name)
    if len(layers) != len(widths) - 1:
        raise Refused(f"{node.path}.{name} has {len(layers)} layers instead of {len(widths) - 1}")
    tensors = {}
    for k, layer in enumerate(layers):
        tensors.update(dense(layer, widths[k], widths[k + 1], "silu" if k + 1 < len(layers) else None))
    return tensors


def dense(
    node: Node, inputs: int, outputs: int, activation: str | None = None, bias: bool = True
) -> dict[str, torch.Tensor]:
    """A dense layer with this activation, or none."""
    node.expect("schnetpack.Dense", "torch.Linear").only(("activation",), ("weight", "bias") if bias else ("weight",))
    found = _activation(node)
    if found != activation:
        raise Refused(
            f"{node.path} has the activation {found or 'none'}; verlet can represent only {activation or 'none'} there"
        )
    shapes = {"weight": (outputs, inputs)} | ({"bias": (outputs,)} if bias else {})
    return {f"{node.path}.{name}": node.tensor(name, shape) for name, shape in shapes.items()}


def _activation(node: Node) -> str | None:
    found = node.recorded.state.get("_modules", {}).get("activation") or node.get("activation", None)
    if found is None:
        return None
    name = found.qualified_name() if hasattr(found, "qualified_name") else repr(found)
    return None if name == "torch.nn.modules.linear.Identity" else _FUNCTIONS.get(name, name)
