"""Networks of other programs as model files of verlet.

`reading.py` opens a file of PyTorch without running anything in it; `schnetpack.py` and `distiller.py` each know one
program's networks and refuse, by name, what verlet cannot represent.
"""

from __future__ import annotations

from pathlib import Path

from ..model_file import write_model_file
from . import distiller, schnetpack
from .network import Choices, Imported, Refused
from .reading import Recorded, read, sha256

SOURCES = {"schnetpack": schnetpack, "distiller": distiller}

__all__ = ["SOURCES", "Choices", "Imported", "Refused", "import_model"]


def import_model(path: Path, out: Path, choices: Choices, source: str | None = None) -> Imported:
    """Reads the network in `path`, made by `source` (found out when None), and writes the model file `out`.

    Raises Refused, with one sentence, for a file that cannot be read, a network that verlet cannot represent, and an
    `out` that exists.
    """
    if out.exists():
        raise Refused(f"{out} exists already; remove it or choose another name")
    if not out.parent.is_dir():
        raise Refused(f"{out.parent} is not a folder")
    root = read(path)
    if source is None:
        source = next((name for name, module in SOURCES.items() if module.recognises(root)), None)
    elif not SOURCES[source].recognises(root):
        raise Refused(f"{path}: {_found(root)}, which is nothing that {source} saves")
    if source is None:
        raise Refused(f"{path}: {_found(root)}; known are {_KNOWN}")
    try:
        imported = SOURCES[source].convert(root, choices)
    except Refused as error:
        raise Refused(f"{path}: {error}") from None
    imported.provenance += f", from the file {path.name} (SHA-256 {sha256(path)})"
    write_model_file(out, imported.tensors, imported.description())
    return imported


_KNOWN = (
    "a network that SchNetPack saved (best_model, or a checkpoint of its training) and a checkpoint of the MLFF "
    "Distiller (a dictionary with model_state_dict)"
)


def _found(root: object) -> str:
    if isinstance(root, Recorded):
        return f"the file holds a {root.qualified_name()}"
    if isinstance(root, dict) and root and all(hasattr(value, "dtype") for value in root.values()):
        return (
            "the file holds weights alone, which do not say what cutoff function, activation or energy offsets belong "
            "to them, so save the whole model instead: torch.save(model, path)"
        )
    if isinstance(root, dict):
        return f"the file holds a dictionary with {', '.join(sorted(map(str, root))[:8]) or 'nothing in it'}"
    return f"the file holds a {type(root).__name__}"
