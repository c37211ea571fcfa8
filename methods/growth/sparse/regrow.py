"""Masked connections come back, in exchange for as many small ones or on top of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.connections import exchange, noisy, wanted
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import MaskPlan
from coppice.methods.surgery.masks import mask_of
from coppice.methods.surgery.tensors import get_tensor


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
