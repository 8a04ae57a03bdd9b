"""The file that verlet reads: tensors in a safetensors file, with a `config` that says what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_model_file(path: Path, tensors: dict[str, torch.Tensor], description: dict) -> None:
    """Writes `tensors` (float32 or float64, CPU) and `description`, the `config` entry of the file's metadata."""
    save_file(tensors, path, metadata={"config": json.dumps(description)})
    path.chmod(0o644)  # the writer makes it private
