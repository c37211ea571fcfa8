"""What goes into some neurons of networks of single connections stays as it is while everything else is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from coppice.methods.companion import Companion
from coppice.methods.network import Network
from coppice.methods.networks.dag import DAG
from coppice.methods.surgery.changes import TensorChange
from coppice.methods.surgery.tensors import get_tensor


class FrozenNeurons(Companion):
    """Freezes the incoming weights and the bias of every neuron that is added to a DAG while this lives.

    Gradients are zero, and what momentum or weight decay would change all the same is put back after each step.
    """

    def __init__(self) -> None:
        self._frozen: dict[str, Tensor] = {}
        self._held: dict[str, Tensor] = {}

    def _rows(self, network: Network) -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, rows in self._frozen.items():
            tensor = get_tensor(network.module, name)
            if bool(rows.any()) and self._of_neurons(network, name):
                yield name, tensor, rows.to(tensor.device)

    def _of_neurons(self, network: Network, name: str) -> bool:
        owner, _, leaf = name.rpartition(".")
        return leaf in ("weight", "bias") and isinstance(network.module.get_submodule(owner), DAG)

    def after_backward(self, network: Network) -> None:
        """See `Companion.after_backward`."""
        for _, tensor, rows in self._rows(network):
            if tensor.grad is not None:
                tensor.grad[rows] = 0.0

    def before_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """See `Companion.before_step`."""
        self._held = {name: tensor.detach()[rows].clone() for name, tensor, rows in self._rows(network)}

    @torch.no_grad()
    def after_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """See `Companion.after_step`."""
        for name, tensor, rows in self._rows(network):
            tensor[rows] = self._held[name]

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """New rows are frozen ones."""
        for change in changes:
            if change.dim == 0 and name.rpartition(".")[2] in ("weight", "bias"):
                index = torch.tensor(change.index)
                old = self._frozen.get(name, torch.zeros(change.old_size, dtype=torch.bool))
                self._frozen[name] = torch.where(index < 0, True, old[index.clamp(min=0)])

    def tensors(self) -> dict[str, Tensor]:
        """Which rows are frozen, by tensor."""
        return {name: rows.to(torch.uint8) for name, rows in self._frozen.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Companion.load`."""
        self._frozen = {name: rows.bool().cpu() for name, rows in tensors.items()}
