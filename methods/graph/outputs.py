"""The tensors in what a forward returns, whatever holds them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_ATOMS = (
    str, bytes, int, float, complex, bool, type, ModuleType, FunctionType, MethodType, nn.Module, torch.Generator, torch.Size,
    torch.dtype, torch.device,
)


@dataclass(frozen=True)
class Returned:
    """What a forward has returned, to be compared with what it returns after a change.

    Attributes:
        results: tensors in containers, mappings, named tuples and dataclasses, of any nesting; their shapes stay.
        held: tensors in the attributes of other objects, as keys and values in a cache. What they hold of each unit comes and
            goes with the units, so they are compared only where their shape stays.
    """

    results: list[Tensor]
    held: list[Tensor]

    @staticmethod
    def of(output: Any) -> Returned:
        """Copies of what can be compared: floating-point and complex tensors; whole numbers and flags without these.

        Raises:
            ValueError: there is nothing to compare.
        """
        found = list(_tensors(output, False, set()))
        chosen = [x for x in found if x[0].is_floating_point() or x[0].is_complex()] or found
        if not any(tensor.numel() for tensor, _ in chosen):
            raise ValueError(
                f"the forward must return at least one tensor with entries, so that what a change does to it can be seen, but it "
                f"returned {_described(output)}; return tensors, or containers or objects that hold them."
            )
        results = [_copy(t) for t, held in chosen if not held]
        held = [_copy(t) for t, held in chosen if held]
        return Returned(results or held, held if results else [])

    def differences(self, before: Returned) -> tuple[float, float] | None:
        """Largest |self - before| and largest |before| over all entries; None where the results have other shapes."""
        if [t.shape for t in self.results] != [t.shape for t in before.results]:
            return None
        pairs = list(zip(self.results, before.results, strict=True))
        if len(self.held) == len(before.held):
            pairs += [(a, b) for a, b in zip(self.held, before.held, strict=True) if a.shape == b.shape]
        changes = [torch.where(a == b, torch.zeros_like(b.abs()), (a - b).abs()) for a, b in pairs]
        return _largest(changes), _largest([b.abs() for _, b in pairs])

    def relative_change(self, before: Returned) -> float:
        """Largest difference of an output over its largest entry; infinite where shapes changed or it is not finite."""
        if [t.shape for t in self.results] != [t.shape for t in before.results]:
            return float("inf")
        worst = 0.0
        for a, b in zip(self.results, before.results, strict=True):
            if b.numel():
                change = float((a - b).abs().max()) / max(float(b.abs().max()), 1e-12)
                worst = max(worst, change if change < float("inf") else float("inf"))
        return worst


def tensors_in(output: Any) -> list[Tensor]:
    """Every tensor in what a forward has returned: in containers, mappings, dataclasses and attributes of other objects."""
    return [tensor for tensor, _ in _tensors(output, False, set())]


def _tensors(output: Any, held: bool, seen: set[int]) -> Iterator[tuple[Tensor, bool]]:
    """Each tensor, and whether an object other than a container or a dataclass holds it."""
    if isinstance(output, Tensor):
        yield output, held
        return
    if output is None or isinstance(output, _ATOMS) or id(output) in seen:
        return
    seen.add(id(output))
    if isinstance(output, Mapping):
        items, inside = list(output.values()), held
    elif isinstance(output, (list, tuple, set, frozenset)):
        items, inside = list(output), held
    elif dataclasses.is_dataclass(output):
        items, inside = [getattr(output, f.name, None) for f in dataclasses.fields(output)], held
    else:
        items, inside = _attributes(output), True
    for item in items:
        yield from _tensors(item, inside, seen)


def _attributes(thing: Any) -> list[Any]:
    slots = [name for kind in type(thing).__mro__ for name in _names(vars(kind).get("__slots__", ()))]
    return [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, n, None) for n in slots if not n.startswith("__"))]


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def _copy(tensor: Tensor) -> Tensor:
    """A dense copy; whole numbers and flags as float64."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_nested:
        tensor = torch.cat([t.flatten() for t in tensor.unbind()])
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    known = tensor.is_floating_point() or tensor.is_complex()
    return tensor.clone() if known else tensor.double()


def _largest(tensors: list[Tensor]) -> float:
    values = [float(t.max()) for t in tensors if t.numel()]
    return float("nan") if any(map(math.isnan, values)) else max(values, default=0.0)


def _described(output: Any) -> str:
    found = tensors_in(output)
    return f"only tensors without entries, in a {type(output).__name__}" if found else f"a {type(output).__name__} without any"
