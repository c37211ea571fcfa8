"""Averaged copies of a network (EMA, SWA) change just as the network does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.surgery.changes import Follower, TensorChange
from coppice.methods.surgery.check import PlanError

_TABLES = ("_parameters", "_modules", "_buffers")


class EmaFollower(Follower):
    """Keeps an averaged copy of the module in shape: it changes just as the module does, fills and compensations included.

    Args:
        average: the copy, or a module that holds it as `.module` (`torch.optim.swa_utils.AveragedModel`, wrappers of data
            parallel training) or as `_orig_mod` (compiled modules).
        module: the network's module.

    Raises:
        ValueError: the copy does not have the module's parameters.
    """

    def __init__(self, average: nn.Module, module: nn.Module) -> None:
        self.module = module
        self.average = _within(average, module)

    def prepare(self, changing: Mapping[str, Sequence[int]]) -> None:
        """The average must still have the network's parameters, in their shapes."""
        mine, live = _shapes(self.average), _shapes(self.module)
        if mine != live:
            names = sorted(n for n in mine.keys() | live.keys() if mine.get(n) != live.get(n))
            raise PlanError(
                f"the average must have the network's parameters in their shapes, but differs in {names[:5]}; "
                "give every change since it was copied its EmaFollower, or copy it again."
            )

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """Nothing is left to do: the average was resized as a mirror."""

    def mirror(self) -> nn.Module:
        """The averaged copy, to change as the network does."""
        return self.average

    def added(self, name: str, parameter: nn.Parameter) -> None:
        """Nothing is left to do: the average was changed as a mirror."""

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """Nothing is left to do: the average was changed as a mirror."""

    def snapshot(self) -> Any:
        """Everything that a change may touch in the average."""
        modules = [(m, _table(m)) for m in self.average.modules()]
        tensors = [*self.average.parameters(), *self.average.buffers()]
        return modules, [(t, t.detach().clone()) for t in tensors]

    def restore(self, snapshot: Any) -> None:
        """Put all back in place: modules, parameters and buffers are the same objects as before."""
        modules, tensors = snapshot
        for module, table in modules:
            module.__dict__.clear()
            module.__dict__.update(table | {k: dict(v) for k, v in table.items() if k in _TABLES})
        with torch.no_grad():
            for tensor, value in tensors:
                tensor.grad = None
                tensor.set_(value)


def _within(average: nn.Module, module: nn.Module) -> nn.Module:
    """The module with the same parameters, perhaps inside wrappers."""
    live, found = _shapes(module).keys(), average
    while _shapes(found).keys() != live:
        inner = next((c for n in ("module", "_orig_mod") if isinstance(c := getattr(found, n, None), nn.Module)), None)
        if inner is None:
            names = sorted(_shapes(average).keys() ^ live)
            raise ValueError(
                f"the average must be a copy of the network's module, or hold one as `.module`, but {type(average).__name__} "
                f"differs in the parameters {names[:5]}."
            )
        found = inner
    return found


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {n: tuple(p.shape) for n, p in module.named_parameters()}


def _table(module: nn.Module) -> dict[str, Any]:
    """A module's attributes; its tables and hooks are copied."""
    table = {k: type(v)(v) if k.endswith("_hooks") and hasattr(v, "copy") else v for k, v in module.__dict__.items()}
    return table | {k: dict(module.__dict__[k]) for k in _TABLES}
