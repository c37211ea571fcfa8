"""Units whose removal changes the loss least to first order go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.graph.values import Element, Role
from methods.method import Context, Measurement, parameter
from methods.plan import PrunePlan
from methods.pruning.per_sample import EVERY, Part, mean_gradients, parts, products, sample_gradients
from methods.pruning.units import UnitPruning
from methods.statistics import require_finite


@dataclass(frozen=True)
class SensitivityPruning(UnitPruning):
    """Scores from d loss / d (a factor on the unit), which is the sum of weight times gradient over the unit's weights."""

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and not parts(context.network, element, self.places()):
            reason = "no trained weight uses its units, so that their activation cannot be told; say form: weights or group"
        return reason

    def places(self) -> tuple[Role, ...]:
        """Roles of the tensors that count."""
        return EVERY

    def parts(self, context: Context, elements: Sequence[Element]) -> dict[str, list[Part]]:
        """Where the units live, by element."""
        return {e.name: parts(context.network, e, self.places()) for e in elements}


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
    cost = "one forward and backward per sample (`samples`) or batch (`batch`)"
    where = ("global", "all")

    form: str = parameter("activation", "which weights of a unit count", choices=("activation", "group"))
    average: str = parameter("samples", "mean of each sample's size, or size of the mean", choices=("samples", "batch"))
    normaliser: str = parameter("none", "norm: scores of an element are divided by their L2 norm", choices=("none", "norm"))

    def places(self) -> tuple[Role, ...]:
        """See `SensitivityPruning.places`."""
        return ("consume",) if self.form == "activation" else EVERY

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Scores, and the signed first-order changes, [size] each."""
        places = self.parts(context, elements)
        names = sorted({p.tensor for found in places.values() for p in found})
        sizes, sums, samples = dict.fromkeys(places, _ZERO), dict.fromkeys(places, _ZERO), 0
        found = sample_gradients if self.average == "samples" else _once
        for gradients in found(context, names, self.num_batches):
            for name, held in places.items():
                factors = products(context.network, held, gradients)
                require_finite(f"gradients of {name}", factors)
                sizes[name], sums[name] = sizes[name] + factors.abs().sum(0), sums[name] + factors.sum(0)
            samples += len(next(iter(gradients.values())))
        scores = {n: self._normalised(s / samples) for n, s in sizes.items()}
        data = self.absorbed(context, elements)
        return Measurement(scores, {n: {**data.get(n, {}), "change": -s / samples} for n, s in sums.items()})

    def _normalised(self, score: Tensor) -> Tensor:
        return score / score.norm().clamp(min=1e-30) if self.normaliser == "norm" else score

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> PrunePlan:
        """Predicts the change of the loss, to first order, where units are taken out and nothing makes up for them."""
        plan = super().plan(context, element, units, measurement)
        if self.form != "activation" or self.removal != "immediate":
            return plan
        return replace(plan, predicted_loss=float(measurement.data[element.name]["change"][list(units)].sum()))


_ZERO = torch.zeros((), dtype=torch.float64)


def _once(context: Context, names: Sequence[str], num_batches: int) -> list[dict[str, Tensor]]:
    return [mean_gradients(context, names, num_batches)]
