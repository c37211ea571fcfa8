"""Units whose removal changes the loss least to second order, by the Fisher information of single samples, go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from methods.graph.values import Element, Role
from methods.method import Context, Measurement, parameter
from methods.plan import PrunePlan
from methods.pruning.per_sample import EVERY, products, sample_gradients
from methods.pruning.taylor import SensitivityPruning
from methods.statistics import require_finite
from methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class Fisher(SensitivityPruning):
    """Score of a unit: half of what the diagonal of the Fisher information says the loss rises by when the unit is removed.

    `form: activation`: 1/2 E_n (sum of weight times gradient of sample n, over the weights that use the unit)^2, the Fisher
    information of a factor on the unit's activation, the unit's weights taken together. `weights`: 1/2 sum over all of the unit's
    weights of w^2 E_n g_n^2, each weight by itself (optimal brain damage with the Fisher diagonal in place of the Hessian's).

    The mean runs over every sample's own gradient: the square of a batch's mean gradient would be smaller by up to the batch
    size. The Fisher information stands for the Hessian where the loss is a log-likelihood and the network fits its targets.
    """

    why = "what a unit's removal would do to the loss near a minimum, where gradients vanish on average but not sample by sample"
    paper = "Theis et al. 2018, Fisher pruning, eq. 8-11 (arXiv 1801.05787); weights: LeCun et al. 1990, optimal brain damage"
    batch_norm = "evaluated with running statistics; its scale and shift count in the form `weights`"
    cost = "one forward and backward per sample"
    where = ("global", "all")

    form: str = parameter("activation", "the unit as a whole, or weight by weight", choices=("activation", "weights"))

    def places(self) -> tuple[Role, ...]:
        """See `SensitivityPruning.places`."""
        return ("consume",) if self.form == "activation" else EVERY

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """See the class."""
        places = self.parts(context, elements)
        names = sorted({p.tensor for found in places.values() for p in found})
        totals = {e.name: torch.zeros(e.size, dtype=torch.float64) for e in elements}
        weights, samples = {n: get_tensor(context.network.module, n).detach() for n in names}, 0
        for gradients in sample_gradients(context, names, self.num_batches):
            squares = {n: (weights[n] * gradients[n]).square().sum(0, keepdim=True) for n in names if self.form == "weights"}
            for name, found in places.items():
                if self.form == "weights":
                    totals[name] += torch.stack([p.sums(squares[p.tensor])[0] for p in found]).sum(0)
                else:
                    totals[name] += products(context.network, found, gradients).square().sum(0)
            samples += len(next(iter(gradients.values())))
        scores = {name: total / (2 * samples) for name, total in totals.items()}
        for name, score in scores.items():
            require_finite(f"the Fisher information of {name}", score)
        return Measurement(scores, self.absorbed(context, elements))

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> PrunePlan:
        """Predicts the rise of the loss where units are taken out and nothing makes up for them."""
        plan = super().plan(context, element, units, measurement)
        if self.removal != "immediate":
            return plan
        return replace(plan, predicted_loss=float(measurement.scores[element.name][list(units)].sum()))
