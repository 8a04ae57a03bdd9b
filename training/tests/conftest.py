import os
from pathlib import Path

import pytest
import torch

from verlet_train.painn import PaiNN

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small_network(request) -> PaiNN:
    """A network with random weights, small enough for finite differences, in float64; Gaussians unless a test says."""
    torch.manual_seed(7)
    basis = getattr(request, "param", {"gaussians": 8})
    model = PaiNN(features=16, interactions=2, cutoff=4.0, readout=8, **basis)
    return model.double().requires_grad_(False)


@pytest.fixture(scope="session")
def engine() -> Path:
    """The built program: VERLET_BINARY, or the newest in the repository's target folder."""
    if "VERLET_BINARY" in os.environ:
        return Path(os.environ["VERLET_BINARY"])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = [path for kind in ("release", "debug") if (path := target / kind / "verlet").exists()]
    if not found:
        pytest.skip(f"there is no built verlet in {target}: run cargo build, or set VERLET_BINARY")
    return max(found, key=lambda path: path.stat().st_mtime)
