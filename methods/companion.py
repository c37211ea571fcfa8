"""What a method keeps beside a network while it trains: penalties, gates, sums over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.network import Network
from coppice.methods.surgery.changes import Follower, TensorChange


class Companion(Follower):
    """Lives as long as its adaptation in a trial; called around each optimizer step, resized with the network, checkpointed.

    The base class does nothing at all: subclasses override what they need. Tensors that `tensors` returns are written into
    every checkpoint and given back to `load`; a companion must go on from them bit by bit.

    A gate on units lives here without a hook: the network's weights are the gated ones at any time (so that evaluation, tracing,
    checkpoints and export need to know nothing of it), the companion keeps what is behind the gate, applies the chain rule in
    `after_backward`, takes over the optimizer's step in `after_step` and writes the gated weights again.
    """

    def begin(self, network: Network) -> None:
        """Once, before the first step of a new training; not where one is resumed. May change the network's weights."""

    def after_backward(self, network: Network) -> None:
        """After each backward pass, before masks, clipping and the optimizer's step: penalties add to gradients here."""

    def before_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """Just before the optimizer's step, after clipping."""

    def after_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """After the optimizer's step."""

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors by name, for a checkpoint; none by default."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned."""

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """See `Follower.resized`."""

    def added(self, name: str, parameter: nn.Parameter) -> None:
        """See `Follower.added`."""

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """See `Follower.removed`."""

    def snapshot(self) -> Any:
        """Copies of the state."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors().items()}

    def restore(self, snapshot: Any) -> None:
        """Put the state back."""
        self.load(snapshot)
