"""Units whose removal changes the loss least to first order go (Molchanov et al. 2017 and 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coppice.methods.graph.values import Element, Role
from coppice.methods.measures.per_sample import EVERY, Part, mean_gradients, products
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.plan import PrunePlan
from coppice.methods.pruning.bases.factors import sample_factors
from coppice.methods.pruning.bases.sensitivity import SensitivityPruning


@dataclass(frozen=True)
class Taylor(SensitivityPruning):
    """Score of a unit: |sum of weight times gradient|, the first-order change of the loss when the unit is removed.

    `form: activation` sums over the weights that use the unit only, which is exactly sum of activation times its gradient, and
    the first-order term of the removal. `group` sums over every tensor that the unit lives in, which counts the same effect once
    for each (twice where activations are positively homogeneous). `average: samples` takes the absolute value of each sample's
    sum and then the mean, which does not vanish where training has converged; `batch` takes that of the mean gradient.
    """

    why = "what a unit's removal would do to the loss, to first order"
    paper = "Molchanov et al. 2017, eq. 7-8 (arXiv 1611.06440) and 2019, eq. 8 (arXiv 1906.10771); groups: arXiv 2301.12900"
    batch_norm = "evaluated with running statistics; its scale and shift count in the form `group`"
    cost = "one forward and backward per batch; per sample in the form `group` with average `samples`"
    where = ("global", "all")

    form: str = parameter("activation", "which weights of a unit count", choices=("activation", "group"))
    average: str = parameter("samples", "mean of each sample's size, or size of the mean", choices=("samples", "batch"))
    normaliser: str = parameter("none", "norm: scores of an element are divided by their L2 norm", choices=("none", "norm"))

    def places(self) -> tuple[Role, ...]:
        """See `SensitivityPruning.places`."""
        return ("consume",) if self.form == "activation" else EVERY

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Scores, and the signed first-order changes, [size] each."""
        by_sample = self._factors(context, self.parts(context, elements))
        sizes, sums, samples = ({e.name: torch.zeros((), dtype=torch.float64) for e in elements} for _ in range(3))
        for factors in by_sample:
            for name, one in factors.items():
                sizes[name], sums[name] = sizes[name] + one.abs().sum(0), sums[name] + one.sum(0)
                samples[name] += len(one)
        if self._per_sample():
            context.ranks.sum(*sizes.values(), *sums.values(), *samples.values())
        for name, size in sizes.items():
            require_finite(f"gradients of {name}", size)
        mean = {n: s / samples[n] for n, s in sums.items()}
        whole = {n: m.abs() if self.average == "batch" else sizes[n] / samples[n] for n, m in mean.items()}
        data = self.absorbed(context, elements)
        scores = {n: self._normalised(s) for n, s in whole.items()}
        return Measurement(scores, {n: {**data.get(n, {}), "change": -m} for n, m in mean.items()})

    def _factors(self, context: Context, places: Mapping[str, Sequence[Part]]) -> Iterator[dict[str, Tensor]]:
        """Of single samples; or those of the mean loss, in one row, where a unit lives in more than its outgoing weights."""
        if self._per_sample():
            yield from sample_factors(context, places, self.num_batches)
            return
        names = sorted({p.tensor for parts in places.values() for p in parts})
        gradients = mean_gradients(context, names, self.num_batches)
        yield {name: products(context.network, parts, gradients) for name, parts in places.items()}

    def _per_sample(self) -> bool:
        return self.form == "activation" or self.average == "samples"

    def _normalised(self, score: Tensor) -> Tensor:
        return score / score.norm().clamp(min=1e-30) if self.normaliser == "norm" else score

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> PrunePlan:
        """Predicts the change of the loss, to first order, where units are taken out and nothing makes up for them."""
        plan = super().plan(context, element, units, measurement)
        if self.form != "activation" or self.removal != "immediate":
            return plan
        return replace(plan, predicted_loss=float(measurement.data[element.name]["change"][list(units)].sum()))

