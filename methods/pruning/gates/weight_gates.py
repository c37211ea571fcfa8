"""Weights behind gates, without hooks: the network holds gated weights at any time, a companion what is behind the gates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coppice.methods.companion import Companion
from coppice.methods.network import Network
from coppice.methods.surgery.changes import TensorChange, followed
from coppice.methods.surgery.tensors import get_tensor


class Gates(Companion):
    """Trains raw weights and gates through the gradients of the gated weights v = gated(raw, own).

    After each backward pass the gradients with respect to v become those with respect to the raw weights; the optimizer steps
    the raw weights (its momentum and weight decay are theirs); then the gated ones are written again. Whatever else changes the
    network (surgery, other methods, masks) is noticed, because v then differs from what was written, and the raw weights are
    found anew so that the network stays as it is.

    Attributes:
        raw: tensor name -> weights behind the gates, in the network's dtype.
        own: trained scalars of the gates, by name, float64.
    """

    def __init__(self) -> None:
        self.raw: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}
        self._written: dict[str, Tensor] = {}

    @abstractmethod
    def gated(self, network: Network, raw: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the network, differentiable in both arguments, by tensor name."""

    @abstractmethod
    def penalty(self, network: Network, raw: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Tensor:
        """What is added to the loss, a scalar."""

    @abstractmethod
    def rebuild(self, network: Network, weights: Mapping[str, Tensor]) -> None:
        """Set `raw` (and `own` where it must be) so that the gated weights are these, which names every tensor to be gated."""

    @abstractmethod
    def names(self, network: Network) -> list[str]:
        """Tensors that are to be gated."""

    @abstractmethod
    def step(self, gradients: Mapping[str, Tensor], lr: float) -> None:
        """Move `own`; `lr` is the learning rate of the optimizer's first group."""

    def adjusted(self, network: Network) -> None:
        """Called after the optimizer's step on the raw weights, before the gated ones are written."""

    @torch.no_grad()
    def sync(self, network: Network) -> None:
        """Notice changes of the network."""
        names, device = self.names(network), network.device()
        if any(t.device != device for t in (*self.raw.values(), *self.own.values())):
            self.raw = {n: t.to(device) for n, t in self.raw.items()}
            self.own = {n: t.to(device) for n, t in self.own.items()}
        live = {n: get_tensor(network.module, n).detach() for n in names}
        if self.raw.keys() == live.keys() and all(self.raw[n].shape == live[n].shape for n in names):
            written = self._written or self.gated(network, self.raw, self.own)
            if all(torch.equal(written[n], live[n]) for n in names):
                return
        self._written = {n: v.clone() for n, v in live.items()}
        self.rebuild(network, self._written)

    def after_backward(self, network: Network) -> None:
        """The chain rule, and the penalty."""
        self.sync(network)
        self._gradients = {}
        if not self.raw:
            return
        tensors = {n: get_tensor(network.module, n) for n in self.raw}
        raw = {n: w.detach().requires_grad_() for n, w in self.raw.items()}
        own = {n: w.clone().requires_grad_() for n, w in self.own.items()}
        with torch.enable_grad(), torch.autocast(network.device().type, enabled=False):
            gated = self.gated(network, raw, own)
            through = [gated[n] for n in raw]
            back = [torch.zeros_like(w) if tensors[n].grad is None else tensors[n].grad for n, w in raw.items()]
            penalty = self.penalty(network, raw, own)
        wanted = [*raw.values(), *own.values()]
        gradients = torch.autograd.grad([*through, penalty], wanted, [*back, torch.ones_like(penalty)], allow_unused=True)
        for name, gradient in zip(raw, gradients, strict=False):
            if tensors[name].grad is not None and gradient is not None:
                tensors[name].grad = gradient.detach()
        rest = zip(own.items(), gradients[len(raw) :], strict=True)
        self._gradients = {n: torch.zeros_like(w) if g is None else g.detach() for (n, w), g in rest}

    @torch.no_grad()
    def before_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer sees the raw weights."""
        for name, raw in self.raw.items():
            get_tensor(network.module, name).copy_(raw)

    @torch.no_grad()
    def after_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """Take the raw weights back, and write the gated ones."""
        for name in self.raw:
            self.raw[name] = get_tensor(network.module, name).detach().clone()
            if name in network.masks:
                self.raw[name] *= network.masks[name]
        self.step(self._gradients, float(optimizer.param_groups[0]["lr"]))
        self.adjusted(network)
        self._written = self.gated(network, self.raw, self.own)
        for name, value in self._written.items():
            get_tensor(network.module, name).copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """See `Companion.tensors`."""
        return {f"raw|{n}": w for n, w in self.raw.items()} | {f"own|{n}": w for n, w in self.own.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Companion.load`."""
        self._written = {}
        self.raw = {n.removeprefix("raw|"): w.clone() for n, w in tensors.items() if n.startswith("raw|")}
        self.own = {n.removeprefix("own|"): w.clone() for n, w in tensors.items() if n.startswith("own|")}

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """What is behind the gates goes with the units; behind those of new units there is nothing yet."""
        raw = self.raw.get(name)
        if raw is None:
            return
        for change in changes:
            raw = followed(raw, change)
        self.raw[name] = raw
