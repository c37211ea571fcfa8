"""Single weights go, all others make up for them (optimal brain surgeon, Hassibi and Stork 1993)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.quadratic import Flat, exact_hessian, gauss_newton, inverse
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import MaskPlan
from coppice.methods.pruning.bases.weights import without
from coppice.methods.surgery.masks import mask_of
from coppice.methods.surgery.tensors import get_tensor


class Surgeon:
    """Removes weights of a quadratic loss one after another; `weights` and `inverse` are what is left, changed in place."""

    def __init__(self, weights: Tensor, inverse: Tensor) -> None:
        self.weights, self.inverse = weights, inverse

    def costs(self) -> Tensor:
        """s_q = w_q^2 / (2 [H^-1]_qq) for each weight, infinite for those that went (their row of the inverse is zero)."""
        left = self.inverse.diagonal()
        return torch.where(left > 0, self.weights.square() / (2 * left.clamp(min=1e-300)), torch.inf)

    def remove(self, q: int) -> float:
        """Weight q becomes zero, the others move by -(w_q / [H^-1]_qq) H^-1 e_q; returns s_q.

        The inverse becomes that of the curvature without row and column q: H^-1 - H^-1 e_q e_q^T H^-1 / [H^-1]_qq.
        """
        column, left = self.inverse[:, q].clone(), float(self.inverse[q, q])
        cost = float(self.weights[q]) ** 2 / (2 * left)
        self.weights.sub_(column, alpha=float(self.weights[q]) / left)
        self.inverse.addr_(column, column, alpha=-1 / left)
        self.inverse[q], self.inverse[:, q], self.weights[q] = 0.0, 0.0, 0.0
        return cost


@dataclass(frozen=True)
class OptimalBrainSurgeon(Method):
    """Removes the weight that costs least, s_q = w_q^2 / (2 [H^-1]_qq), and moves all others to the best place without it.

    The curvature H is Gauss-Newton (never bends down) or the exact Hessian, over all trained weights that are not masked, biases
    included. It is taken once an event; weights go one after another, the inverse following each. The gradient is taken as
    zero where weights are chosen and moved, as in the paper, and counted in the predicted loss. Advises as many as go before
    one costs more than `tolerance` times the loss, at most the fraction `most`.

    Plans of one measurement build on each other, in the order in which they are asked for, as `adapt` carries them out;
    where one of them is rolled back, the others move weights as if it had not been.
    """

    kind = "prune"
    levels = ("weight",)
    why = "the smallest increase of the loss for each weight that goes, after all others have made up for it"
    paper = "Hassibi and Stork 1993, optimal brain surgeon, eq. 5 (NIPS 5); Gauss-Newton form their eq. 10-13"
    preserves = False
    batch_norm = "scales and shifts make up like any weight; statistics stay (eval mode)"
    cost = "a Jacobian of every sample (Gauss-Newton) or a backward pass for every weight; the inverse of a P x P matrix"
    where = ("global",)
    advises = True

    curvature: str = parameter("gauss_newton", "what H is", choices=("gauss_newton", "exact"))
    damping: float = parameter(
        1e-3, "added to H, times its diagonal: what keeps moves small where the loss is flat", low=1e-12, high=1.0, log=True
    )
    tolerance: float = parameter(1e-3, "advised weights cost at most this fraction of the loss each", low=0.0, high=1.0)
    most: float = parameter(0.05, "at most this fraction of the weights is advised at a time", low=1e-4, high=1.0, log=True)
    num_batches: int = parameter(8, "batches that H is taken over", low=1, high=10000)
    largest: int = parameter(3000, "weights that a network may have: H has its square", low=1, high=20000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and (size := len(Flat.of(context.network))) > self.largest:
            return f"the curvature of {size} weights is too large for optimal brain surgeon (at most {self.largest}); use fisher"
        return reason

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """What each weight costs: of those that would go first, when it is their turn; of the others, after that."""
        if not elements:
            return Measurement({})
        flat = Flat.of(context.network)
        quadratic = (gauss_newton if self.curvature == "gauss_newton" else exact_hessian)(context, flat, self.num_batches)
        shared = {
            "weights": quadratic.weights.clone(), "inverse": inverse(quadratic.curvature, self.damping),
            "start": quadratic.weights, "gradient": quadratic.gradient, "curvature": quadratic.curvature,
        }  # fmt: skip
        surgeon = Surgeon(quadratic.weights.clone(), shared["inverse"].clone())
        costs, order = self._order(surgeon, flat, elements, quadratic.loss)
        scores = {e.name: costs[torch.tensor(flat.range_of(e.name), dtype=torch.long)] for e in elements}
        advised = {e.name: len(set(flat.range_of(e.name)) & set(order)) for e in elements}
        return Measurement(scores, {e.name: shared for e in elements}, advised, {"loss": quadratic.loss})

    def _order(self, surgeon: Surgeon, flat: Flat, elements: Sequence[Element], loss: float) -> tuple[Tensor, list[int]]:
        """Costs of all weights [P] and which would go within the tolerance; those that would cost less than any that stays."""
        ours = torch.zeros(len(flat), dtype=torch.bool)
        for e in elements:
            ours[torch.tensor(flat.range_of(e.name), dtype=torch.long)] = True
        order: list[int] = []
        paid: list[float] = []
        while len(order) < int(self.most * len(flat)):
            now = torch.where(ours, surgeon.costs(), torch.inf)
            q = int(now.argmin())
            if not float(now[q]) <= self.tolerance * loss:
                break
            paid.append(max(surgeon.remove(q), *paid) if paid else surgeon.remove(q))
            order.append(q)
        costs = surgeon.costs().clamp(min=paid[-1] if paid else 0.0)
        costs[torch.tensor(order, dtype=torch.long)] = torch.tensor(paid, dtype=torch.float64)
        return costs, order

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> MaskPlan:
        """See `Method.plan`."""
        shared, flat = measurement.data[element.name], Flat.of(context.network)
        start = flat.range_of(element.name).start
        surgeon, before = Surgeon(shared["weights"], shared["inverse"]), shared["weights"].clone()
        left = [start + u for u in units]
        while left:
            costs = surgeon.costs()
            q = min(left, key=lambda i: float(costs[i]))
            surgeon.remove(q)
            left.remove(q)
        moves = flat.scatter(surgeon.weights - before)
        return MaskPlan(
            {element.name: without(mask_of(context.network, element.name).cpu(), units)},
            predicted_loss=_increase(shared, before, surgeon.weights),
            adjust={n: move.to(get_tensor(context.network.module, n).dtype) for n, move in moves.items()},
        )


def _increase(shared: Mapping[str, Tensor], before: Tensor, after: Tensor) -> float:
    """What moving the weights from `before`, where earlier plans of the step have brought them, adds to the quadratic loss."""
    return _quadratic(shared, after - shared["start"]) - _quadratic(shared, before - shared["start"])


def _quadratic(shared: Mapping[str, Tensor], step: Tensor) -> float:
    return float(shared["gradient"] @ step + step @ shared["curvature"] @ step / 2)
