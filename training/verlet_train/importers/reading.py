"""Files of torch.save, read without running anything that they name.

A file of torch.save is a pickle, and a pickle may name any function and have it called. Here only tensors and plain
containers are made; whatever else the file names becomes a Recorded, which holds the name and the stored state. So a
network can be read without the program that made it, and a hostile file does nothing.

This module is what torch.load takes for its `pickle_module`: it offers Unpickler and load.
"""

from __future__ import annotations

import collections
import hashlib
import pickle
import sys
import zipfile
from pathlib import Path

import torch

from .network import Refused

# What a file may have called: these make tensors and containers, nothing else.
_HARMLESS = {
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
}


class Recorded:
    """An object, or the result of a call, of which only the name and the stored state are known."""

    state: dict

    def __new__(cls, *arguments, **named):
        made = object.__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state) -> None:
        if isinstance(state, dict):
            self.state = state

    # Objects that are also containers: their content is not needed.
    def __setitem__(self, key, value) -> None:
        pass

    def append(self, item) -> None:
        pass

    def extend(self, items) -> None:
        pass

    @classmethod
    def qualified_name(cls) -> str:
        """Module and name of the class, or function, that the file names."""
        return f"{cls.__module__}.{cls.__name__}"


class Unpickler(pickle.Unpickler):
    """Makes a Recorded of everything that is not known to be harmless."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self._classes: dict[tuple[str, str], type] = {}

    def find_class(self, module: str, name: str):
        if (module, name) in _HARMLESS:
            return _HARMLESS[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) not in self._classes:
            self._classes[module, name] = type(name, (Recorded,), {"__module__": module})
        return self._classes[module, name]


def load(file, **named):
    return Unpickler(file, **named).load()


def read(path: Path) -> object:
    """What the file holds, on the CPU, with a Recorded for every object that is no tensor and no plain container."""
    if not path.is_file():
        raise Refused(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise Refused(f"{path} is not a file of torch.save, or it is damaged")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise Refused(
            f"{path} is a TorchScript archive, whose weights have lost their names; import the model it was made of"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise Refused(f"{path} is a zip archive, but not one of torch.save")
    try:
        return torch.load(path, map_location="cpu", pickle_module=sys.modules[__name__], weights_only=False)
    except Exception as error:  # noqa: BLE001 a damaged pickle can fail in any way
        raise Refused(f"{path} cannot be read as a file of torch.save: {type(error).__name__}: {error}") from None


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
