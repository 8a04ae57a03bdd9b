import pytest
import torch

from verlet_train.painn import PaiNN


@pytest.fixture
def small_network() -> PaiNN:
    """A network with random weights, small enough for finite differences, in float64."""
    torch.manual_seed(7)
    return PaiNN(features=16, interactions=2, gaussians=8, cutoff=4.0, readout=8).double().requires_grad_(False)
