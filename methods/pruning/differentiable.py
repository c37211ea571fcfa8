"""Gates that gradient descent takes to exactly zero, unit by unit (differentiable sparsification, Lee 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.network import Network
from coppice.methods.pruning.bases.units import UnitPruning
from coppice.methods.pruning.gates.unit_gates import UnitGates
from coppice.methods.pruning.gates.unit_norms import gated_parts, norms
from coppice.methods.surgery.tensors import get_tensor


@dataclass(frozen=True)
class Differentiable(UnitPruning):
    """While training, the weights v that use unit g are w_g times the gate relu(|w_g| - sigmoid(beta) sum_h |w_h|) / |w_g|.

    Raw weights w and beta (one per element) are trained through the gate by gradient descent, so that gates reach exactly 0; the
    penalty is strength * sum_g a_g^p with the shares a_g = |v_g| / sum_h |v_h|. A gate at 0 passes the gradient of an ELU in
    place of relu's, so that its unit can come back. The units with gates at 0 are advised, and their removal is exact. Scores are
    the norms |v_g|; where there is no companion (outside of training), units whose weights v are all 0 are advised.

    The paper's form for groups and its trained threshold are kept. Ours are: the group is the unit's outgoing weights (BatchNorm
    would undo a gate on the incoming ones, and a unit with a bias would not vanish); the scale of the ELU (the mean norm); at
    most 0.1 of change of beta in a step; a start that leaves the function as it is, also where units come and go; a cap on the
    threshold that keeps the largest unit; no gate for units that were grown without outgoing weights until they have some.
    """

    why = "which units to keep is learned with the weights, by gradient descent alone; what is removed is exactly zero"
    paper = "Lee 2019, Differentiable Sparsification for Deep Neural Networks (arXiv 1910.03201), in the structured form"
    batch_norm = "does not matter: outgoing weights are gated"
    cost = "a few operations on the gated weights in each training step; nothing at an event"
    where = ("all", "global")
    advises = True

    strength: float = parameter(1e-3, "weight of the penalty in the loss", low=0.0, high=1.0, log=True)
    p: float = parameter(0.5, "power of the penalty; below 1, since the shares sum to 1", low=0.05, high=0.95)
    start: float = parameter(0.1, "threshold at the start, as a fraction of the mean norm", low=1e-4, high=0.5, log=True)
    rate: float = parameter(1.0, "learning rate of beta, as a multiple of the optimizer's", low=0.0, high=1000.0, log=True)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and element.name not in gated_parts(context.network):
            reason = "no trained weight uses its units, or those of another element gate the same weights"
        return reason

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Norms of the gated weights; units with gates at 0 are advised."""
        places, scores, advised = gated_parts(context.network), {}, {}
        companion = context.companion if isinstance(context.companion, UnitGates) else None
        for element in elements:
            weights = {p.tensor: get_tensor(context.network.module, p.tensor).detach() for p in places[element.name]}
            scores[element.name] = norms(places[element.name], weights).double().cpu()
            require_finite(f"the weights that use {element.name}", scores[element.name])
            zero = scores[element.name] == 0
            if companion is not None and weights.keys() <= companion.raw.keys():
                zero &= norms(places[element.name], companion.raw).cpu() > 0
            advised[element.name] = int(zero.sum())
        return Measurement(scores, self.absorbed(context, elements), advised)

    def companion(self, network: Network) -> Companion:
        """The gates of the network's units."""
        return UnitGates(network, self.strength, self.p, self.start, self.rate)
