"""The same network in other people's programs: the weights of a verlet model file, energy and forces of one structure.

An evaluator is made for one structure, whose pairs are given; calling it computes energy and forces once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pairs import Structure, pair_list

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "training"))

from verlet_train.painn import PaiNN  # noqa: E402

#: Energy in the network's unit without offsets, and forces [N, 3] in that unit per Å.
Evaluator = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def read_model(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """What a model file says of itself, and its tensors. It is a safetensors file of float32 numbers."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    config = json.loads(header.pop("__metadata__")["config"])
    if config["architecture"] != "painn" or config["radial_basis"]["kind"] != "gaussian":
        raise ValueError(f"{path}: only PaiNN networks with Gaussian radial functions are compared")
    if config["units"] != {"energy": "eV", "length": "angstrom"}:
        raise ValueError(f"{path}: only networks in eV and Å are compared")
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        values = np.frombuffer(data[begin:end], dtype={"F32": np.float32, "F64": np.float64}[entry["dtype"]])
        tensors[name] = torch.tensor(values.astype(np.float32)).reshape(entry["shape"])
    return config, tensors


class Problem:
    """A network and a structure on a device."""

    def __init__(self, model: Path, structure: Structure, device: str):
        self.config, self.tensors = read_model(model)
        self.device = device
        i, j, shift = pair_list(structure, self.config["cutoff"])
        self.pairs = len(i)
        self.numbers = torch.tensor(structure.numbers, device=device)
        self.positions = torch.tensor(structure.positions, dtype=torch.float32, device=device)
        self.i, self.j = torch.tensor(i, device=device), torch.tensor(j, device=device)
        self.shift = torch.tensor(shift, dtype=torch.float32, device=device)

    def network(self) -> PaiNN:
        """Our own PaiNN with the model's weights."""
        config = self.config
        network = PaiNN(
            config["features"],
            config["interactions"],
            config["radial_basis"]["count"],
            config["cutoff"],
            config["readout_layers"][1],
            config["norm_epsilon"],
        )
        network.load_state_dict(self.tensors)
        return network.eval().requires_grad_(False).to(self.device)

    def evaluate(self, energies: Callable, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy and forces; `energies` are those of the atoms from numbers, pair vectors and pair ends."""
        r = positions.index_select(0, self.j) - positions.index_select(0, self.i) + self.shift
        energy = energies(self.numbers, r, self.i, self.j).sum()
        (gradient,) = torch.autograd.grad(energy, positions)
        return energy.detach(), -gradient

    def leaf(self) -> torch.Tensor:
        return self.positions.clone().requires_grad_(True)


def eager(problem: Problem) -> Evaluator:
    """Our network as it is trained."""
    network, positions = problem.network(), problem.leaf()
    return lambda: problem.evaluate(network, positions)


def torchscript(problem: Problem) -> Evaluator:
    """The same, traced for this structure; the runtime optimises it in its first evaluations."""
    network, positions = problem.network(), problem.leaf()
    r = (problem.positions[problem.j] - problem.positions[problem.i] + problem.shift).requires_grad_(True)
    inputs = (problem.numbers, r, problem.i, problem.j)
    traced = torch.jit.trace(network, inputs, check_trace=False)
    return lambda: problem.evaluate(traced, positions)


def cuda_graph(problem: Problem) -> Evaluator:
    """All kernels of an evaluation as one CUDA graph, launched again and again: PyTorch without its own time."""
    network, positions = problem.network(), problem.leaf()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            problem.evaluate(network, positions)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = problem.evaluate(network, positions)

    def replay():
        graph.replay()
        return result

    return replay


def schnetpack(problem: Problem) -> Evaluator:
    """SchNetPack's own PaiNN with the same weights."""
    import schnetpack.atomistic as atomistic
    import schnetpack.nn as nn
    import schnetpack.properties as keys
    from schnetpack.model import NeuralNetworkPotential
    from schnetpack.representation import PaiNN as Representation

    config = problem.config
    cutoff, features = config["cutoff"], config["features"]
    model = NeuralNetworkPotential(
        Representation(
            features,
            config["interactions"],
            nn.GaussianRBF(config["radial_basis"]["count"], cutoff),
            nn.CosineCutoff(cutoff),
            epsilon=config["norm_epsilon"],
        ),
        [atomistic.PairwiseDistances()],
        [
            atomistic.Atomwise(features, n_hidden=config["readout_layers"][1], output_key=keys.energy),
            atomistic.Forces(),
        ],
    )
    lacking = model.load_state_dict(problem.tensors, strict=False)
    if lacking.unexpected_keys or set(lacking.missing_keys) - {"representation.cutoff_fn.cutoff"}:
        raise RuntimeError(f"SchNetPack's network is another one: {lacking}")
    model = model.eval().requires_grad_(False).to(problem.device)
    whole = {
        keys.Z: problem.numbers,
        keys.R: problem.leaf(),
        keys.idx_i: problem.i,
        keys.idx_j: problem.j,
        keys.offsets: problem.shift,
        keys.idx_m: torch.zeros_like(problem.numbers),
        keys.n_atoms: torch.tensor([len(problem.numbers)], device=problem.device),
    }

    def evaluate():
        out = model(dict(whole))
        return out[keys.energy].detach(), out[keys.forces]

    return evaluate


PEERS: dict[str, Callable[[Problem], Evaluator]] = {
    "schnetpack": schnetpack,
    "eager": eager,
    "torchscript": torchscript,
    "cuda-graph": cuda_graph,
}
