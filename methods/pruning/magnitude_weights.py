"""Single weights that are small go: masks, shapes unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.plan import MaskPlan
from methods.statistics import require_finite
from methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class MagnitudeWeights(Method):
    """Masks the weights with the smallest absolute value; masked ones stay masked.

    Units are the weights that are not masked yet, in the tensor's order, so an amount is a fraction of those. Selection `all`
    prunes each tensor by the same fraction, `global` all of them by one threshold.
    """

    kind = "prune"
    levels = ("weight",)
    why = "small weights matter little; what every other way to sparsity must beat"
    paper = "Han et al. 2015 (arXiv 1506.02626)"
    preserves = False
    batch_norm = "does not matter"

    removal: str = parameter("immediate", "weights are masked at once", choices=("immediate",))

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Absolute values of the weights that are not masked."""
        scores = {}
        for element in elements:
            tensor = get_tensor(context.network.module, element.name).detach().abs().float()
            require_finite(element.name, tensor)
            scores[element.name] = tensor[_mask(context, element)].cpu()
        return Measurement(scores)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> MaskPlan:
        """See `Method.plan`."""
        mask = _mask(context, element).cpu()
        kept = mask.flatten().nonzero().flatten()
        mask.view(-1)[kept[torch.tensor(list(units), dtype=torch.long)]] = False
        return MaskPlan({element.name: mask})


def _mask(context: Context, element: Element) -> Tensor:
    known = context.network.masks.get(element.name)
    if known is not None:
        return known.clone()
    return torch.ones_like(get_tensor(context.network.module, element.name), dtype=torch.bool).contiguous()
