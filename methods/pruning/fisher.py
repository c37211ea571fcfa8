"""Units whose removal changes the loss least to second order go (Fisher pruning, Theis et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coppice.methods.graph.values import Element, Role
from coppice.methods.measures.per_sample import EVERY, Part, sample_gradients
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.plan import PrunePlan
from coppice.methods.pruning.bases.factors import sample_factors
from coppice.methods.pruning.bases.sensitivity import SensitivityPruning
from coppice.methods.surgery.tensors import get_tensor


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
    cost = "one forward and backward per batch; per sample in the form `weights`"
    where = ("global", "all")

    form: str = parameter("activation", "the unit as a whole, or weight by weight", choices=("activation", "weights"))

    def places(self) -> tuple[Role, ...]:
        """See `SensitivityPruning.places`."""
        return ("consume",) if self.form == "activation" else EVERY

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Half of the Fisher information of each unit, [units] each, float64."""
        places = self.parts(context, elements)
        totals = {e.name: torch.zeros(e.size, dtype=torch.float64) for e in elements}
        samples = dict.fromkeys(totals, 0)
        for squares, number in self._squares(context, places):
            for name, sums in squares.items():
                totals[name] += sums
                samples[name] += number
        context.ranks.sum(*totals.values())
        samples = {name: context.ranks.count(number) for name, number in samples.items()}
        scores = {name: total / (2 * samples[name]) for name, total in totals.items()}
        for name, score in scores.items():
            require_finite(f"the Fisher information of {name}", score)
        return Measurement(scores, self.absorbed(context, elements))

    def _squares(self, context: Context, places: Mapping[str, Sequence[Part]]) -> Iterator[tuple[dict[str, Tensor], int]]:
        """Squares, summed over some samples, and how many those are."""
        if self.form == "activation":
            for factors in sample_factors(context, places, self.num_batches):
                yield {name: one.square().sum(0) for name, one in factors.items()}, len(next(iter(factors.values()), ()))
            return
        names = sorted({p.tensor for parts in places.values() for p in parts})
        weights = {n: get_tensor(context.network.module, n).detach() for n in names}
        for gradients in sample_gradients(context, names, self.num_batches):
            squares = {n: (weights[n] * gradients[n]).square().sum(0, keepdim=True) for n in names}
            number = len(next(iter(gradients.values()), ()))
            sums = {name: [p.sums(squares[p.tensor])[0] for p in parts] for name, parts in places.items()}
            yield {name: torch.stack(rows).sum(0) for name, rows in sums.items()}, number

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> PrunePlan:
        """Predicts the rise of the loss where units are taken out and nothing makes up for them."""
        plan = super().plan(context, element, units, measurement)
        if self.removal != "immediate":
            return plan
        return replace(plan, predicted_loss=float(measurement.scores[element.name][list(units)].sum()))
