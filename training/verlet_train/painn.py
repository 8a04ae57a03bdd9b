"""The PaiNN network: Schütt, Unke and Gastegger, "Equivariant message passing for the prediction of tensorial
properties and molecular spectra", ICML 2021; parameter names are SchNetPack 2's, so that its files fit.

Shapes: A atoms, P directed pairs, G systems in the batch, F features, K radial functions, L interactions.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import silu


def two_layers(inputs: int, hidden: int, outputs: int) -> nn.ModuleList:
    """Two dense layers with SiLU between them (`apply_two`), Xavier-initialised, no bias at first."""
    layers = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)])
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layers


def apply_two(layers: nn.ModuleList, x):
    return layers[1](silu(layers[0](x)))


class Gaussians(nn.Module):
    """Gaussians on 0 … cutoff; offsets and widths are stored with the weights, because their float32 values count."""

    def __init__(self, count: int, cutoff: float):
        super().__init__()
        offsets = torch.linspace(0, cutoff, count)
        self.register_buffer("offsets", offsets)
        self.register_buffer("widths", (offsets[1] - offsets[0]).abs() * torch.ones(count))

    def forward(self, distance):
        """distance [P] → [P, K]"""
        return torch.exp(-0.5 * ((distance[:, None] - self.offsets) / self.widths) ** 2)

    def size(self) -> dict[str, int]:
        """The argument of `PaiNN` that makes such functions."""
        return {"gaussians": len(self.offsets)}


class BesselFunctions(nn.Module):
    """sin(kπ d / cutoff) / d, k from 1 to `count`: Gasteiger, Groß and Günnemann, ICLR 2020, without their prefactor."""

    def __init__(self, count: int, cutoff: float):
        super().__init__()
        self.register_buffer("freqs", torch.arange(1, count + 1) * (torch.pi / cutoff))

    def forward(self, distance):
        """distance [P], none of them zero → [P, K]"""
        return torch.sin(distance[:, None] * self.freqs) / distance[:, None]

    def size(self) -> dict[str, int]:
        """The argument of `PaiNN` that makes such functions."""
        return {"bessel": len(self.freqs)}


class Message(nn.Module):
    """Adds to every atom what its neighbours send: q [A, F], mu [A, 3, F] (None in the first layer: it is zero)."""

    def __init__(self, features: int):
        super().__init__()
        self.features = features
        self.interatomic_context_net = two_layers(features, features, 3 * features)

    def forward(self, q, mu, filters, unit, i, j):
        """filters [P, 3F], already times the cutoff function; unit [P, 3] from centre i to neighbour j."""
        used = 2 if mu is None else 3
        x = apply_two(self.interatomic_context_net, q).index_select(0, j)
        width = used * self.features
        parts = (filters[:, :width] * x[:, :width]).split(self.features, dim=1)
        arrow = parts[1][:, None] * unit[:, :, None]
        if mu is not None:
            arrow = arrow + parts[2][:, None] * mu.index_select(0, j)
        q = q.index_add(0, i, parts[0])
        zero = torch.zeros(len(q), 3, self.features, dtype=q.dtype, device=q.device) if mu is None else mu
        return q, zero.index_add(0, i, arrow)


class Mixing(nn.Module):
    """Mixes scalars and vectors on each atom."""

    def __init__(self, features: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.intraatomic_context_net = two_layers(2 * features, features, 3 * features)
        self.mu_channel_mix = nn.Linear(features, 2 * features, bias=False)
        nn.init.xavier_uniform_(self.mu_channel_mix.weight)

    def forward(self, q, mu):
        v, y = self.mu_channel_mix(mu).chunk(2, dim=-1)
        norm = torch.sqrt((v**2).sum(1) + self.epsilon)
        # TorchScript cannot differentiate `chunk` when a part of it is of no use, as a_mu is in the last layer.
        context = apply_two(self.intraatomic_context_net, torch.cat([q, norm], dim=-1))
        a_q, a_mu, a_qmu = context.split(q.shape[-1], dim=-1)
        return q + a_q + a_qmu * (v * y).sum(1), mu + a_mu[:, None] * y


class Representation(nn.Module):
    def __init__(
        self, features: int, interactions: int, gaussians: int, cutoff: float, epsilon: float, bessel: int = 0
    ):
        super().__init__()
        self.cutoff = cutoff
        self.features = features
        self.embedding = nn.Embedding(100, features, padding_idx=0)
        self.radial_basis = BesselFunctions(bessel, cutoff) if bessel else Gaussians(gaussians, cutoff)
        self.filter_net = nn.Linear(bessel or gaussians, interactions * 3 * features)
        nn.init.xavier_uniform_(self.filter_net.weight)
        nn.init.zeros_(self.filter_net.bias)
        self.interactions = nn.ModuleList(Message(features) for _ in range(interactions))
        self.mixing = nn.ModuleList(Mixing(features, epsilon) for _ in range(interactions))

    def forward(self, numbers, r, i, j):
        """numbers [A], pair vectors r [P, 3] (Å) from i to j → scalars [A, F]"""
        distance = torch.sqrt((r**2).sum(1))
        unit = r / distance[:, None]
        envelope = 0.5 * (torch.cos(distance * (torch.pi / self.cutoff)) + 1) * (distance < self.cutoff)
        filters = self.filter_net(self.radial_basis(distance)) * envelope[:, None]
        q, mu = self.embedding.weight.index_select(0, numbers), None
        for message, mixing, filter_ in zip(self.interactions, self.mixing, filters.split(3 * self.features, dim=1)):
            q, mu = message(q, mu, filter_, unit, i, j)
            q, mu = mixing(q, mu)
        return q


class Readout(nn.Module):
    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.outnet = two_layers(features, hidden, 1)

    def forward(self, q):
        return apply_two(self.outnet, q).squeeze(-1)


class PaiNN(nn.Module):
    """Energy of each atom, in the unit it was trained in and without the energy offset.

    With `bessel` so many Bessel functions take the Gaussians' place.
    """

    def __init__(self, features=128, interactions=3, gaussians=20, cutoff=5.0, readout=64, epsilon=1e-8, bessel=0):
        super().__init__()
        self.representation = Representation(features, interactions, gaussians, cutoff, epsilon, bessel)
        self.output_modules = nn.ModuleList([Readout(features, readout)])

    @property
    def cutoff(self) -> float:
        return self.representation.cutoff

    def forward(self, numbers, r, i, j):
        """numbers [A], pair vectors r [P, 3] (Å), pair ends i, j [P] → energies [A]"""
        return self.output_modules[0](self.representation(numbers, r, i, j))


def energy_and_forces(model: PaiNN, numbers, positions, i, j, shift, create_graph=False):
    """Atomic energies [A] and forces [A, 3] for positions [A, 3]; pair vectors are x_j − x_i + shift."""
    positions = positions.detach().requires_grad_(True)
    with torch.enable_grad():
        r = positions.index_select(0, j) - positions.index_select(0, i) + shift
        energies = model(numbers, r, i, j)
        (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=create_graph)
    return (energies if create_graph else energies.detach()), -gradient
