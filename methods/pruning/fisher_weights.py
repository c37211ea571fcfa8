"""Single weights whose removal changes the loss least to second order go (optimal brain damage, LeCun et al. 1990)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.connections import weights_of
from coppice.methods.measures.per_sample import sample_gradients
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.plan import MaskPlan
from coppice.methods.pruning.bases.weights import WeightPruning


@dataclass(frozen=True)
class FisherWeights(WeightPruning):
    """Score of a weight: w^2 E_n[g_n^2] / 2, what the diagonal of the Fisher information says the loss rises by without it.

    Optimal brain damage with the empirical Fisher diagonal in place of the Hessian's. The mean runs over every sample's own
    gradient g_n: the square of a batch's mean gradient would be smaller by up to the batch size. The Fisher information stands
    for the Hessian where the loss is a log-likelihood and the network fits its targets; the first-order term is left out, as at
    a minimum. A plan predicts the sum of its weights' scores, which leaves out what they do together.
    """

    why = "near a minimum the loss rises by its curvature: small weights matter in steep directions, large ones less in flat ones"
    paper = "LeCun et al. 1990, optimal brain damage, eq. 5; Theis et al. 2018 (arXiv 1801.05787) for the Fisher information"
    batch_norm = "evaluated with running statistics"
    cost = "one forward and backward per sample of `num_batches` batches"
    where = ("global", "all")

    num_batches: int = parameter(4, "batches whose samples the mean runs over", low=1, high=1000)

    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """See the class; float64."""
        weights = weights_of(context, elements)
        totals = {n: torch.zeros(w.shape, dtype=torch.float64, device=w.device) for n, w in weights.items()}
        samples = 0
        for gradients in sample_gradients(context, list(weights), self.num_batches):
            for name, gradient in gradients.items():
                totals[name] += gradient.double().square().sum(0)
            samples += len(next(iter(gradients.values())))
        context.ranks.sum(*totals.values())
        samples = context.ranks.count(samples)
        return {n: weights[n].double().square() * total / (2 * max(samples, 1)) for n, total in totals.items()}

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> MaskPlan:
        """See `Method.plan`."""
        plan = super().plan(context, element, units, measurement)
        return replace(plan, predicted_loss=float(measurement.scores[element.name][list(units)].sum()))
