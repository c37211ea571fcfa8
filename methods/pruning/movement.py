"""Single weights that training moves towards zero go (movement pruning, Sanh et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element
from coppice.methods.measures.step_sums import StepSums
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.pruning.bases.weights import WeightPruning


class Movement(StepSums):
    """S -= g * w at every step, of every trained tensor of two or more dimensions; g is the gradient before it is masked."""

    def __init__(self) -> None:
        super().__init__("movement")

    @torch.no_grad()
    def after_backward(self, network: Network) -> None:
        """See `Companion.after_backward`."""
        for name, parameter in network.module.named_parameters():
            if parameter.grad is not None and parameter.dim() >= 2:
                self.seen(name, parameter)
                self.tables["movement"][name].sub_(parameter.grad.float() * parameter.float())


@dataclass(frozen=True)
class MovementWeights(WeightPruning):
    """Score of a weight: S = - sum over steps of g * w. S rises while descent moves the weight away from zero.

    The paper's first-order movement with hard masks. Its learning rate of the scores scales all of them alike and is left out.
    Ours: masked weights stay masked, where the paper's straight-through gradients let them return; add `rigl` or `snfs` for that.
    """

    why = "in fine-tuning, what a weight does counts for more than what it was: large ones may shrink and small ones grow"
    paper = "Sanh et al. 2020, movement pruning, eq. 4-5 (arXiv 2005.07683)"
    cost = "no pass; one product of every tensor with its gradient beside each training step"
    when = ("cubic",)
    where = ("global", "all")

    def companion(self, network: Network) -> Companion:
        """See `Method.companion`."""
        return Movement()

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None:
            return reason
        if not isinstance(context.companion, Movement):
            return "movement is summed by a companion while the network trains, but there is none"
        return None if element.name in context.companion.steps else f"no training step of {element.name} was taken yet"

    def importance(self, context: Context, elements: Sequence[Element]) -> Mapping[str, Tensor]:
        """S of every weight, float32."""
        assert isinstance(context.companion, Movement), "adapt asks `accepts` before"
        return {e.name: context.companion.tables["movement"][e.name] for e in elements}
