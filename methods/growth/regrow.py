"""Masked connections come back, in exchange for as many small ones or on top of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.network import Network
from methods.plan import MaskPlan
from methods.pruning.magnitude_weights import noisy
from methods.statistics import require_finite
from methods.surgery.connections import connected, could_exist
from methods.surgery.masks import mask_of
from methods.surgery.tensors import get_tensor


def exchange(active: Tensor, drop: Tensor, grow: Tensor, count: int) -> Tensor:
    """A mask with as many active entries, `count` of which are chosen anew.

    The active entries with the highest drop scores are kept, all but `count`. The same number grows, by the highest grow scores
    among everything that is not kept: an entry that was just dropped may come back.

    Args:
        active: mask, any shape.
        drop: scores at the same shape, low goes.
        grow: scores at the same shape, high comes.
        count: at most the number of active entries.
    """
    num = int(active.sum())
    lifted = torch.where(active, drop.double(), -torch.inf).flatten()
    kept = torch.zeros_like(lifted, dtype=torch.bool)
    kept[lifted.argsort(descending=True, stable=True)[: num - count]] = True
    return grown(kept.view(active.shape), grow, count)


def grown(active: Tensor, grow: Tensor, count: int) -> Tensor:
    """The mask with the `count` highest-scored entries that are not active as well; the first of equal ones."""
    mask = active.flatten().clone()
    mask[torch.where(mask, -torch.inf, grow.double().flatten()).argsort(descending=True, stable=True)[:count]] = True
    return mask.view(active.shape)


def wanted(network: Network, name: str, value: Tensor) -> Tensor:
    """Grow scores of a tensor's connections: absolute values, -inf where none can exist (it would close a cycle)."""
    mask = mask_of(network, name)
    return torch.where(mask | could_exist(network.module, name, mask), value.abs(), -torch.inf)


def no_dense_gradient(network: Network, name: str) -> str | None:
    """Why masked weights of a tensor have no gradient, if so: modules that know their connections compute those only."""
    for owner, part in connected(network.module).items():
        prefix = f"{owner}." if owner else ""
        if name.startswith(prefix) and part.could_exist(name.removeprefix(prefix)) is not None:
            return f"{owner or 'the network'} gives no gradient to connections that do not exist; use set"
    return None


@dataclass(frozen=True)
class Regrow(Method):
    """Gives masked connections back to each tensor. Subclasses say which.

    An amount is a fraction of the tensor's active weights. With `replace`, that many active weights of smallest |w| + noise are
    dropped in the same plan, so that the sparsity stays; the new ones are chosen among everything that is not kept, so that a
    weight that was just dropped may come back, and then keeps its value. Other new connections start at 0 and without momentum
    (the optimizer's second moments start at the mean of the tensor's). Without `replace` connections only come, and the function
    stays as it is.

    At most as many are exchanged as are masked. Where two new connections of an acyclic network would close a cycle together,
    only the first comes, and the network is that much sparser. The published code skips the optimizer's step when masks change;
    here masks change between steps.
    """

    kind = "grow"
    levels = ("weight",)
    preserves = False
    batch_norm = "does not matter"
    where = ("all",)
    when = ("periodic", "cosine")

    replace: bool = parameter(True, "as many active weights of small magnitude go", choices=(True, False))
    noise: float = parameter(1e-5, "standard deviation of what decides among equal magnitudes", low=0.0, high=1.0)

    def promises(self) -> bool:
        """See `Method.promises`: connections of weight 0 change nothing, dropped ones do."""
        return not self.replace

    def exchanges(self) -> bool:
        """See `Method.exchanges`."""
        return self.replace

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and bool(mask_of(context.network, element.name).all()):
            return f"no connection of {element.name} is masked; prune weights first (rigl_drop, or random_weights with erk)"
        return reason

    @abstractmethod
    def candidates(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """Element name -> a number for every connection at the tensor's shape; the largest absolute values come first."""

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Scores of the masked connections, descending.

        Data, for all connections at the tensor's shape: the `value` that `candidates` gives, the `grow` scores and, with
        `replace`, the `drop` scores. For the masked ones that may come: their `indices` in the flat tensor, in the order of their
        scores.
        """
        for element in elements:
            require_finite(element.name, get_tensor(context.network.module, element.name))
        scores, data = {}, {}
        for name, value in (self.candidates(context, elements) if elements else {}).items():
            require_finite(f"the scores of {name}'s connections", value)
            score = wanted(context.network, name, value)
            offered = ~mask_of(context.network, name) & score.isfinite()
            masked = offered.flatten().nonzero().flatten()
            order = score.flatten()[masked].argsort(descending=True, stable=True)
            scores[name] = score.flatten()[masked][order].cpu()
            data[name] = {"indices": masked[order], "grow": score, "value": value}
            if self.replace:
                weight = get_tensor(context.network.module, name).detach()
                data[name]["drop"] = noisy(weight.abs().double(), self.noise, context.generator)
        return Measurement(scores, data)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> MaskPlan:
        """See `Method.plan`; the positions are the first ones of what was offered."""
        data = measurement.data[element.name]
        mask = mask_of(context.network, element.name)
        if self.replace:
            mask = exchange(mask, data["drop"], data["grow"], min(len(units), int(mask.sum())))
        else:
            mask.view(-1)[data["indices"][torch.tensor(list(units), dtype=torch.long, device=mask.device)]] = True
        return MaskPlan({element.name: mask.cpu()})
