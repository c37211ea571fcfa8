"""Gradients that were accumulated before a change: kept for all parameters, or for none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from torch import Tensor, nn

from coppice.methods.surgery.changes import Follower, TensorChange, followed


class GradientFollower(Follower):
    """Keeps the gradients of all parameters through a change.

    Those of resized parameters follow their index maps, with zeros for new entries: nothing was accumulated for them yet. A
    sparse gradient cannot follow; where one would have to, all gradients are dropped.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.outcome: str | None = None
        self._gradients: dict[nn.Parameter, Tensor] = {}

    def prepare(self, changing: Mapping[str, Sequence[int]]) -> None:
        """Remember what was accumulated; `outcome` is `kept`, `dropped`, or None where there is nothing."""
        self._gradients = {p: p.grad for p in self.module.parameters() if p.grad is not None}
        named = dict(self.module.named_parameters())
        resized = [self._gradients.get(named[n]) for n in changing if n in named]
        sparse = any(g is not None and (g.is_sparse or g.shape != p.shape) for p, g in self._gradients.items() if _in(g, resized))
        self.outcome = None if not self._gradients else "dropped" if sparse else "kept"

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """The gradient follows."""
        if isinstance(tensor, nn.Parameter) and tensor in self._gradients and self.outcome == "kept":
            self._gradients[tensor] = reduce(followed, changes, self._gradients[tensor])

    def added(self, name: str, parameter: nn.Parameter) -> None:
        """A new parameter has no gradient yet."""

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """Its gradient goes with it."""
        self._gradients.pop(parameter, None)

    def finish(self) -> Sequence[str]:
        """Give all gradients back, or none."""
        for parameter in self.module.parameters():
            parameter.grad = self._gradients.get(parameter) if self.outcome == "kept" else None
        self._gradients = {}
        return ()

    def snapshot(self) -> Any:
        """The gradients; copies, since `accept` may train on before it decides."""
        return {p: (g, g.detach().clone()) for p, g in self._gradients.items()}

    def restore(self, snapshot: Any) -> None:
        """Put every gradient back, in the tensor that held it."""
        self._gradients = {}
        for parameter, (gradient, value) in snapshot.items():
            same = gradient.shape == value.shape and not value.is_sparse
            parameter.grad = gradient.copy_(value) if same else value


def _in(gradient: Tensor, some: Sequence[Tensor | None]) -> bool:
    return any(gradient is other for other in some)
