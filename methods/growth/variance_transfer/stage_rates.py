"""A learning rate of its own for the weights of each growth stage, whatever the optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from coppice.methods.companion import Companion
from coppice.methods.network import Network
from coppice.methods.surgery.changes import TensorChange, followed


class StageRates(Companion):
    """eta_t = eta_0 ||W_dt||_F / ||W_0||_F for the entries W_dt of a weight that came with growth stage t.

    W_0 are the entries of the weight that were there from the beginning; both norms are taken just after the growth (the paper
    leaves the moment open). Every resize is a stage of its own, whichever adaptation of the trial made it. Biases and other
    tensors of one dimension keep their rate, and so does a sub-block that starts at zero or whose W_0 is zero or gone, as the
    ratio would be 0 or undefined.

    The optimizer's step, momentum, decay and all, is made shorter afterwards: p = p_before + factor (p_after - p_before). For
    SGD this is the same as a learning rate for each entry.

    Attributes:
        factors: parameter name -> factor of each of its entries; weights that never grew are left out.
        seeds: parameter name -> which entries are W_0.
    """

    def __init__(self) -> None:
        self.factors: dict[str, Tensor] = {}
        self.seeds: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    @torch.no_grad()
    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """Follow the entries; new ones get their rate. See `Follower.resized`."""
        if tensor.dim() < 2 or not isinstance(tensor, nn.Parameter):
            return
        grows = any(i < 0 for c in changes for i in c.index)
        if name not in self.factors and not grows:
            return
        old_shape = list(tensor.shape)
        for c in changes:
            old_shape[c.dim] = c.old_size
        factor = self.factors.get(name, torch.ones(old_shape, dtype=tensor.dtype)).to(tensor)
        seed = self.seeds.get(name, torch.ones(old_shape, dtype=torch.bool)).to(tensor.device)
        new = torch.zeros(old_shape, dtype=torch.bool, device=tensor.device)
        for c in changes:
            factor, seed, new = (followed(t, c, fill) for t, fill in ((factor, 1.0), (seed, False), (new, True)))
        if grows:
            factor[new] = _ratio(tensor, new, seed)
        self.factors[name], self.seeds[name] = factor, seed

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """See `Follower.removed`."""
        self.factors.pop(name, None)
        self.seeds.pop(name, None)

    def before_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """Remember the weights. See `Companion.before_step`."""
        self._before = {name: network.module.get_parameter(name).detach().clone() for name in self.factors}

    @torch.no_grad()
    def after_step(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        """Shorten the step. See `Companion.after_step`."""
        for name, before in self._before.items():
            parameter = network.module.get_parameter(name)
            factor = self.factors[name].to(parameter)
            parameter.copy_(torch.where(factor == 1, parameter, torch.lerp(before, parameter, factor)))
        self._before = {}

    def tensors(self) -> dict[str, Tensor]:
        """Factors and seeds by `factor|name` and `seed|name`."""
        factors = {f"factor|{name}": t for name, t in self.factors.items()}
        return factors | {f"seed|{name}": t for name, t in self.seeds.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Companion.load`."""
        kept = {key: t.detach().clone() for key, t in tensors.items()}
        self.factors = {k.removeprefix("factor|"): t for k, t in kept.items() if k.startswith("factor|")}
        self.seeds = {k.removeprefix("seed|"): t.bool() for k, t in kept.items() if k.startswith("seed|")}
        self._before = {}


def _ratio(tensor: Tensor, new: Tensor, seed: Tensor) -> float:
    born, first = (float(tensor[which].double().norm()) for which in (new, seed))
    return born / first if born > 0 and first > 0 else 1.0
