"""The smallest weights go: single ones by a mask, or whole units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.plan import MaskPlan, PrunePlan
from methods.pruning.units import entry_sums, occurrences, reduce_units, removal_plan
from methods.statistics import require_finite
from methods.surgery.tensors import get_tensor

REMOVALS = ("immediate", "absorb")


@dataclass(frozen=True)
class Magnitude(Method):
    """Units with the smallest norm of everything that makes and takes them (Li et al. 2017; group norm as in DepGraph)."""

    kind = "prune"
    levels = ("channel", "head", "group")
    paper = "Li et al. 2017, Pruning Filters for Efficient ConvNets; group norm: Fang et al. 2023, DepGraph, eq. 6"
    preserves = False
    batch_norm = "its scales are not part of the norm; removed channels lose scale, shift and statistics"

    normalise: bool = parameter(True, "divide by the element's mean score, so that layers of different size compare")
    removal: str = parameter("immediate", "how units leave", choices=REMOVALS)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Euclidean norm of each unit's rows and columns."""
        scores = {}
        for element in elements:
            total = torch.zeros(element.size)
            for o, units in occurrences(context, element):
                if o.role in ("produce", "consume"):
                    total += reduce_units(entry_sums(context, o).cpu().float(), units, element.size)
            score = total.sqrt()
            require_finite(f"the weights of {element.name}", score)
            scores[element.name] = score / score.mean().clamp_min(1e-12) if self.normalise else score
        return Measurement(scores)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> PrunePlan:
        """Remove `units`."""
        return removal_plan(context, element, units, self.removal, None)


@dataclass(frozen=True)
class MagnitudeWeights(Method):
    """Single weights with the smallest magnitude (Han et al. 2015). `amount` is the fraction of all weights that is masked now
    and was not before; masked weights never come back.
    """

    kind = "prune"
    levels = ("weight",)
    paper = "Han et al. 2015, Learning both Weights and Connections for Efficient Neural Networks"
    preserves = False
    batch_norm = "norms' scales and shifts are not masked"

    normalise: bool = parameter(False, "divide by the tensor's mean magnitude before ranking across tensors")

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """|w|; infinite where already masked, so that it is not chosen again."""
        scores = {}
        for element in elements:
            weight = get_tensor(context.network.module, element.name).detach().flatten().cpu().float().abs()
            require_finite(f"the weights of {element.name}", weight)
            if self.normalise:
                weight = weight / weight.mean().clamp_min(1e-12)
            mask = context.network.masks.get(element.name)
            scores[element.name] = weight if mask is None else weight.masked_fill(~mask.flatten().cpu(), float("inf"))
        return Measurement(scores)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> MaskPlan:
        """The present mask without `units` (entries of the flattened tensor)."""
        weight = get_tensor(context.network.module, element.name)
        old = context.network.masks.get(element.name)
        mask = torch.ones(weight.numel(), dtype=torch.bool) if old is None else old.flatten().cpu().clone()
        mask[torch.tensor(list(units), dtype=torch.int64)] = False
        return MaskPlan({element.name: mask.reshape(weight.shape)})
