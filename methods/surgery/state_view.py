"""An optimizer's state, entry by entry: what each is to its parameter, and bringing it to another shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.surgery.changes import TensorChange
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.state_entries import (
    COPIES,
    MOMENTA,
    SECOND_MOMENTS,
    Entry,
    Path,
    fill_of,
    keep_products,
    label,
    leaves,
    replaced,
    rule_of,
)  # fmt: skip
from coppice.methods.surgery.state_layout import SAME, choose, common_kinds

USUAL = MOMENTA | SECOND_MOMENTS | COPIES
_PLAIN = (type(None), bool, int, float, str, torch.Size)
_QUANTISED = (torch.uint8, torch.int8)


class StateView:
    """What is known of an optimizer's state before a change.

    Attributes:
        optimizer: whose state.
        copies: labels of the entries that are copies of the weights.
        shapes: the shapes of the network's parameters at that time.
    """

    def __init__(self, optimizer: Any, module: nn.Module) -> None:
        self.optimizer = optimizer
        self._names: dict[Tensor, str] = {p: n for n, p in module.named_parameters()}
        self.shapes = {p: p.shape for p in self._names}
        self._held: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, state in optimizer.state.items():
            if isinstance(parameter, Tensor) and parameter in self._names and isinstance(state, Mapping):
                for path, value in leaves(state):
                    if isinstance(value, Tensor) and value.ndim and value.numel():
                        self._held[label(path)].append((value, parameter))
        self._common = {k: common_kinds((v.shape, p.shape) for v, p in held) for k, held in self._held.items()}
        self._fills: dict[str, str] = {}
        self.copies = sorted(k for k in self._held if self._fill(k) == "copy")

    def _fill(self, key: str) -> str:
        if key not in self._fills:
            self._fills[key] = fill_of(key, self._held[key])
        return self._fills[key]

    def copy_of(self, parameter: Tensor, key: str) -> Tensor | None:
        """The copy of a weight that is kept under a label."""
        state = self.optimizer.state.get(parameter)
        found = leaves(state) if isinstance(state, Mapping) else ()
        value = next((v for path, v in found if label(path) == key and isinstance(v, Tensor)), None)
        return None if value is None else value.reshape(self.shapes.get(parameter, parameter.shape))

    def give_copy(self, parameter: Tensor, key: str, value: Tensor) -> None:
        """Replace it."""
        state = self.optimizer.state[parameter]
        path, old = next((path, old) for path, old in leaves(state) if label(path) == key)
        same = old.ndim == value.ndim
        state[path[0]] = replaced(state[path[0]], {path: value if same else value.flatten()}, path[:1])

    def check(self, changing: Mapping[str, Sequence[int]]) -> None:
        """Raise `PlanError` where the state of a parameter that will be resized cannot be understood."""
        for parameter, name in self._names.items():
            if name in changing and isinstance(state := self.optimizer.state.get(parameter), Mapping):
                self.entries(parameter, state, changing[name])

    def entries(
        self, parameter: Tensor, state: Mapping[str, Any], dims: Sequence[int], shape: Sequence[int] = ()
    ) -> dict[Path, Entry]:
        """The tensors of a state that have to do with the parameter's shape (`shape`, or that which it has now)."""
        shape, found = tuple(shape or parameter.shape), {}
        for path, value in leaves(state):
            if rule_of(self.optimizer, str(path[0])) is not None or isinstance(value, _PLAIN):
                continue
            if not isinstance(value, Tensor):
                raise self._not_understood(parameter, path, f"of type {type(value).__name__}")
            if value.ndim == 0 or value.numel() == 0:
                continue
            key = label(path)
            common = self._common.get(key, frozenset())
            strange = type(value) not in (Tensor, nn.Parameter) or value.dtype in _QUANTISED or value.is_sparse
            usual = str(path[0]) in USUAL
            kind = None if strange else choose(key, value, shape, common, usual=usual, changing=dims)
            if kind is None:
                dtype = str(value.dtype).removeprefix("torch.")
                raise self._not_understood(parameter, path, f"of shape {tuple(value.shape)} ({dtype})")
            found[path] = Entry(value, kind, self._fill(key) if key in self._held else fill_of(key, [(value, parameter)]), shape)
        return found

    def follow(self, parameter: Tensor, changes: Sequence[TensorChange]) -> None:
        """Bring a parameter's state to its new shape; copies of weights are left to the mirrors."""
        state = self.optimizer.state.get(parameter)
        if not isinstance(state, dict) or not state:
            return
        shape = list(parameter.shape)
        for change in changes:
            shape[change.dim] = change.old_size
        paths = self.entries(parameter, state, [c.dim for c in changes], shape)
        entries = {label(path): entry for path, entry in paths.items() if label(path) not in self.copies}
        for change in changes:
            before, entries = entries, {key: entry.after(change) for key, entry in entries.items()}
            keep_products(before, entries, change)
        new: dict[Path, Any] = {path: entries[label(path)].value for path in paths if label(path) in entries}
        new |= {path: parameter.shape for path, v in leaves(state) if isinstance(v, torch.Size) and tuple(v) == tuple(shape)}
        for key, value in list(state.items()):
            rule = rule_of(self.optimizer, str(key))
            state[key] = rule(value, parameter, changes) if rule else replaced(value, new, (key,))

    def masked(self, parameter: Tensor, before: Tensor, after: Tensor) -> None:
        """New connections start without momentum; their second moments are the mean of those that are kept."""
        state = self.optimizer.state.get(parameter)
        born, kept = after & ~before, after & before
        if not isinstance(state, dict) or not bool(born.any()):
            return
        new: dict[Path, Any] = {}
        for path, value in leaves(state):
            key, usual = label(path), str(path[0]) in USUAL
            if not isinstance(value, Tensor) or value.shape != parameter.shape or value.ndim == 0 or key in self.copies:
                continue
            if choose(key, value, value.shape, self._common[key], usual=usual, changing=range(value.ndim)) != SAME:
                continue
            mean = self._fill(key) == "mean" and bool(kept.any())
            fill = value[kept].mean() if mean else torch.zeros((), dtype=value.dtype, device=value.device)
            new[path] = torch.where(born, fill, value)
        for key, value in list(state.items()):
            state[key] = replaced(value, new, (key,))

    def _not_understood(self, parameter: Tensor, path: Path, what: str) -> PlanError:
        kind = type(self.optimizer).__name__
        return PlanError(
            f"every entry of an optimizer's state must follow the parameter that it belongs to, but for {self._names[parameter]} "
            f"of shape {tuple(parameter.shape)} {kind} keeps {label(path)!r} {what}, and how it belongs to it cannot be told; "
            f"give {kind} a method coppice_resized(parameter, changes), or say it by "
            f"register_state_rule({kind}, {str(path[0])!r}, rule)."
        )
