"""Units whose fan-ins point the same way are merged into one (condensation, Chen and Xu 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.plan import PrunePlan
from coppice.methods.pruning.bases.merging import fan
from coppice.methods.pruning.bases.units import UnitPruning

MERGED_INTO = 2.0
"""Score of units that others are merged into; those of the others are 1 - how alike they are, at most 1."""


@dataclass(frozen=True)
class Condense(UnitPruning):
    """Merges units into others of the same layer: the consumer's weights of the one that goes are added, scaled, to the other's.

    Two units are alike by the cosine of their fan-ins [w; b], with a BatchNorm folded in. Behind positively homogeneous
    activations (ReLU, leaky ReLU; also through max-pooling) the factor is the ratio of the norms and the sign must agree; behind
    odd ones (tanh) the norms must agree and the sign is the factor; which of the two holds is found by running the path, and
    elements of which neither holds are refused. Merging is exact where one fan-in is the factor times the other; elsewhere the
    factor is multiplied by the cosine, which makes it the least-squares one (ours).

    Score of a unit: 1 - how alike it is to the unit that it would be merged into; pairs are formed from the most alike down, and
    a unit that another was merged into stays. It advises to merge the units that are alike by `cosine` or more.
    """

    why = "units that have condensed into the same direction compute the same; one of them can do it for all"
    paper = "Chen & Xu 2024, network condensation (arXiv 2405.01041); factors: Kim et al. 2020, Neuron Merging (NeurIPS 2020)"
    batch_norm = "folded into the fan-in with sqrt(var + eps), so that merging is exact in evaluation mode"
    where = ("all", "global")
    advises = True

    cosine: float = parameter(0.95, "merging is advised from this similarity on", low=0.0, high=1.0)
    removal: str = parameter("merge", "units are merged into others", choices=("merge",))

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Scores of the units, [units] each, and how many are alike enough to be merged."""
        scores = {}
        for element in elements:
            fan_ins = fan(context, element)
            scores[element.name] = scores_of(fan_ins.alike(), fan_ins.vectors.norm(dim=1))
        tolerance = 1e-12
        advised = {name: int((score <= 1 - self.cosine + tolerance).sum()) for name, score in scores.items()}
        return Measurement(scores, advised=advised)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> PrunePlan:
        """Each unit goes into the one most like it among those that stay."""
        return PrunePlan(element.name, tuple(units), "merge", merge=fan(context, element).nearest(units))


def scores_of(alike: Tensor, norms: Tensor) -> Tensor:
    """[units]: 1 - how alike each is to the unit that it would be merged into; `MERGED_INTO` for those that are merged into.

    Args:
        alike: [units, units].
        norms: of the fan-ins; the smaller one of a pair goes.
    """
    n = len(alike)
    scores = torch.full((n,), MERGED_INTO, dtype=torch.float64)
    gone, kept = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    a, b = torch.triu_indices(n, n, 1)
    order = torch.maximum(alike, alike.T)[a, b].argsort(descending=True, stable=True)
    for part in order.split(4096):
        i, j = a[part], b[part]
        open_ = ~(gone[i] | gone[j] | (kept[i] & kept[j]))
        for one, other in zip(i[open_].tolist(), j[open_].tolist(), strict=True):
            if gone[one] or gone[other] or (kept[one] and kept[other]):
                continue
            first = bool(kept[other]) or (not kept[one] and bool(norms[one] < norms[other]))
            goes, stays = (one, other) if first else (other, one)
            gone[goes], kept[stays] = True, True
            scores[goes] = 1 - alike[goes, stays]
        if bool((gone | kept).all()):
            break
    return scores
