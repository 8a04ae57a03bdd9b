"""A torch.nn module as the file recorded it, with its place in the network for messages."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .network import Refused
from .reading import Recorded

_REQUIRED = object()


@dataclass(frozen=True)
class Node:
    recorded: Recorded
    path: str = ""
    # Tensors by full name that replace those stored with the modules: a training checkpoint's state.
    weights: dict[str, torch.Tensor] | None = None

    def _name(self, child: str) -> str:
        return f"{self.path}.{child}" if self.path else child

    @property
    def place(self) -> str:
        return self.path or "the model"

    def is_a(self, *names: str) -> bool:
        """Is its class one of these, each "package.Class"? The modules between may differ from version to version."""
        module, _, name = self.recorded.qualified_name().rpartition(".")
        return f"{module.split('.')[0]}.{name}" in names

    def expect(self, *names: str) -> Node:
        if not self.is_a(*names):
            known = " or ".join(name.rpartition(".")[2] for name in names)
            raise Refused(f"{self.place} is a {self.recorded.qualified_name()}; verlet can represent only {known}")
        return self

    def get(self, attribute: str, default: object = _REQUIRED):
        value = self.recorded.state.get(attribute, default)
        if value is _REQUIRED:
            raise Refused(f"{self.place} ({self.recorded.qualified_name()}) has no attribute {attribute}")
        return value

    def children(self) -> dict[str, Node]:
        modules = self.recorded.state.get("_modules", {})
        return {
            name: Node(module, self._name(name), self.weights) for name, module in modules.items() if module is not None
        }

    def child(self, name: str) -> Node:
        found = self.children().get(name)
        if found is None or not isinstance(found.recorded, Recorded):
            raise Refused(f"{self.place} ({self.recorded.qualified_name()}) has no module {name}")
        return found

    def entries(self, name: str) -> list[Node]:
        """The modules of a ModuleList or Sequential; none where there is no such list."""
        found = self.children().get(name)
        if found is None:
            return []
        return list(found.expect("torch.ModuleList", "torch.Sequential").children().values())

    def tensors(self) -> dict[str, torch.Tensor]:
        stored = {**self.recorded.state.get("_parameters", {}), **self.recorded.state.get("_buffers", {})}
        return {
            name: (self.weights or {}).get(self._name(name), tensor)
            for name, tensor in stored.items()
            if tensor is not None
        }

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """A tensor without its gradient, in float64 if it is, else float32."""
        found = self.tensors().get(name)
        if found is None:
            raise Refused(f"the tensor {self._name(name)} is missing")
        if not found.is_floating_point():
            raise Refused(f"the tensor {self._name(name)} holds {found.dtype} numbers")
        if shape is not None and tuple(found.shape) != shape:
            raise Refused(f"the tensor {self._name(name)} has the shape {list(found.shape)} instead of {list(shape)}")
        return found.detach().to(torch.float64 if found.dtype == torch.float64 else torch.float32).clone().contiguous()

    def number(self, name: str) -> float:
        """A tensor that holds one number."""
        found = self.tensor(name)
        if found.numel() != 1:
            raise Refused(f"the tensor {self._name(name)} holds {found.numel()} numbers instead of one")
        return float(found)

    def only(self, modules: tuple[str, ...] = (), tensors: tuple[str, ...] = ()) -> Node:
        """Refuses modules and tensors beyond these: what is not known may change the answer."""
        for kind, found, known in [("module", self.children(), modules), ("tensor", self.tensors(), tensors)]:
            for name in found:
                if name not in known:
                    raise Refused(f"{self.place} has a {kind} {name}, which verlet cannot represent")
        return self
