"""Gradual magnitude pruning that also rewires what is left (GraNet, Liu et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.connections import exchange, magnitudes, no_dense_gradient, noisy, wanted, weights_of
from coppice.methods.measures.per_sample import mean_gradients
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.plan import MaskPlan
from coppice.methods.pruning.bases.weights import WeightPruning, without
from coppice.methods.surgery.masks import mask_of


@dataclass(frozen=True)
class GraNet(WeightPruning):
    """Magnitude pruning by `amount` (trigger `cubic`, selection `global`), then a zero-cost regeneration of each tensor.

    Of what is left of a tensor, the fraction `regrow` of smallest |w| + noise is dropped as well, and as many connections come
    back by the largest dense gradient among everything that is not kept, in the same plan. What was just dropped may come back
    and keeps its value; other new connections start at 0 and without momentum. A tensor from which the selection takes nothing is
    not rewired either. The paper lowers `regrow` along a cosine; here it is constant.
    """

    why = "pruning while training, with dropped connections replaced by those that the gradient asks for"
    paper = "Liu et al. 2021, GraNet, algorithm 1 (arXiv 2106.10404)"
    batch_norm = "gradients are taken with running statistics"
    cost = "`num_batches` forwards and backwards"
    when = ("cubic",)
    where = ("global",)

    regrow: float = parameter(0.5, "part of the remaining weights of each tensor that is exchanged", low=0.0, high=1.0)
    noise: float = parameter(1e-5, "standard deviation of what decides among equal magnitudes", low=0.0, high=1.0)
    num_batches: int = parameter(1, "batches over which the gradient is averaged", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        return super().accepts(context, element) or no_dense_gradient(context.network, element.name)

    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """Absolute values of the weights, float32."""
        return magnitudes(context, elements)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Magnitudes; data: `grow` and `drop` scores of all connections, at the tensor's shape."""
        measured = super().measure(context, elements, most)
        gradients = mean_gradients(context, list(measured.scores), self.num_batches) if measured.scores else {}
        data = {}
        for name, weight in weights_of(context, elements).items():
            require_finite(f"the gradient of {name}", gradients[name])
            drop = noisy(weight.abs().double(), self.noise, context.generator)
            data[name] = {"grow": wanted(context.network, name, gradients[name][0]), "drop": drop}
        return Measurement(measured.scores, data)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> MaskPlan:
        """See `Method.plan`."""
        data = measurement.data[element.name]
        left = without(mask_of(context.network, element.name), units)
        mask = exchange(left, data["drop"], data["grow"], int(self.regrow * int(left.sum())))
        return MaskPlan({element.name: mask.cpu()})
