"""What pruning of single weights shares: scores of those that are not masked, and the mask without the chosen ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import MaskPlan
from coppice.methods.surgery.masks import mask_of
from coppice.methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class WeightPruning(Method):
    """Masks single weights; masked ones stay masked. Subclasses say how important each weight is.

    Units are the weights that are not masked yet, in the tensor's order, so an amount is a fraction of those. Selection `all`
    prunes each tensor by the same fraction, `global` all of them by one threshold, `erk` by what the tensors' shapes say.
    """

    kind = "prune"
    levels = ("weight",)
    preserves = False
    batch_norm = "does not matter"

    removal: str = parameter("immediate", "weights are masked at once", choices=("immediate",))

    @abstractmethod
    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """Element name -> importance of every weight, at the tensor's shape; what it says of masked weights is not used."""

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Importance of the weights that are not masked."""
        if not elements:
            return Measurement({})
        for element in elements:
            require_finite(element.name, get_tensor(context.network.module, element.name))
        scores = {}
        for name, importance in self.importance(context, elements).items():
            scores[name] = importance[mask_of(context.network, name)].cpu()
            require_finite(f"the importance of {name}", scores[name])
        return Measurement(scores)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> MaskPlan:
        """See `Method.plan`."""
        return MaskPlan({element.name: without(mask_of(context.network, element.name).cpu(), units)})


def without(mask: Tensor, units: Sequence[int]) -> Tensor:
    """A copy of the mask in which the active entries numbered `units` are masked too."""
    kept = mask.flatten()
    kept[kept.nonzero().flatten()[torch.tensor(list(units), dtype=torch.long)]] = False
    return kept.view(mask.shape)
