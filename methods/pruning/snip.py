"""Single weights whose removal changes the loss least to first order go before training (SNIP, Lee et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.connections import weights_of
from coppice.methods.measures.per_sample import mean_gradients
from coppice.methods.method import Context, parameter
from coppice.methods.pruning.bases.weights import WeightPruning


@dataclass(frozen=True)
class Snip(WeightPruning):
    """Score of a weight: |w * dL/dw|, the sensitivity of the mean loss to a factor on the weight (connection sensitivity).

    A factor's derivative at 1 says what its removal does to first order. The paper divides the scores by their sum over the
    network, which changes no order and is left out.
    """

    why = "connections the loss does not respond to before training are not needed for it"
    paper = "Lee et al. 2019, SNIP, eq. 5-6 (arXiv 1810.02340)"
    batch_norm = "evaluated with running statistics, which are mean 0 and variance 1 before any training"
    cost = "`num_batches` forwards and backwards"
    when = ("initial",)
    where = ("global",)

    num_batches: int = parameter(1, "batches over which the loss is averaged", low=1, high=1000)

    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """See the class; float64."""
        weights = weights_of(context, elements)
        gradients = mean_gradients(context, list(weights), self.num_batches)
        return {name: (w.double() * gradients[name][0].double()).abs() for name, w in weights.items()}
