"""Pair lists for batches of equal systems, all periodic images counted: a box smaller than the cutoff works."""

from __future__ import annotations

import torch


def pair_list(positions, cutoff: float, cell=None):
    """Every directed pair with |x_j + S·cell − x_i| < cutoff, in B copies of one system.

    positions [B, N, 3] (Å, need not be wrapped); cell [3, 3] or [B, 3, 3] (rows are the edge vectors, periodic in
    all directions) or None. Returns frame [P], i [P], j [P] (long) and shift [P, 3] (Å, S·cell for these
    positions), sorted by frame, then i. i = j with S ≠ 0 is a pair like any other.
    """
    count, atoms, _ = positions.shape
    if cell is None:
        delta = positions[:, None] - positions[:, :, None]  # [B, i, j, 3]
        near = (delta**2).sum(-1) < cutoff**2
        near &= ~torch.eye(atoms, dtype=torch.bool, device=positions.device)
        frame, i, j = near.nonzero(as_tuple=True)
        return frame, i, j, torch.zeros(len(i), 3, dtype=positions.dtype, device=positions.device)
    cell = cell.expand(count, 3, 3)
    inverse = torch.linalg.inv(cell)
    home = torch.floor(positions @ inverse) @ cell  # where each atom's own cell begins
    wrapped = positions - home
    heights = 1 / torch.linalg.norm(inverse, dim=1)  # [B, 3], distances between opposite faces
    reach = torch.ceil(cutoff / heights).max(0).values.tolist()
    steps = torch.cartesian_prod(*[torch.arange(-r, r + 1, device=positions.device) for r in reach])
    images = steps.to(positions.dtype) @ cell  # [B, M, 3]
    from_i = wrapped[:, :, None, None] - images[:, None, None]  # [B, i, 1, M, 3]
    delta = wrapped[:, None, :, None] - from_i
    near = (delta**2).sum(-1) < cutoff**2
    near[:, :, :, len(steps) // 2] &= ~torch.eye(atoms, dtype=torch.bool, device=positions.device)
    frame, i, j, m = near.nonzero(as_tuple=True)
    return frame, i, j, images[frame, m] - home[frame, j] + home[frame, i]
