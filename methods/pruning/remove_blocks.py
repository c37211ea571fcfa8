"""Whole blocks whose absence the loss does not notice go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.plan import RemovePlan
from methods.statistics import mean_loss, require_finite


@dataclass(frozen=True)
class RemoveBlocks(Method):
    """Score of a block: how much the loss rises when its input is passed on in its place.

    For a branch beside a skip path: when zeros are. Measured by doing it, one block
    at a time. `layers: true` offers single layers that keep their input's shape as well.
    """

    kind = "prune"
    levels = ("block", "layer")
    why = "blocks that hardly change what passes through them are not needed"
    paper = "trial removal, as in Veit et al. 2016 (arXiv 1605.06431), section 4.1"
    preserves = False
    batch_norm = "goes with its block"

    layers: bool = parameter(False, "single layers too", choices=(False, True))
    num_batches: int = parameter(2, "batches over which the loss is taken", low=1, high=1000)
    removal: str = parameter("immediate", "blocks are removed at once", choices=("immediate",))

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and element.level == "layer" and not self.layers:
            reason = "a single layer; say layers: true to offer those"
        return reason

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Rise of the mean loss without each block."""
        module, calls = context.network.module, context.network.graph().modules
        whole = mean_loss(context, self.num_batches)
        scores = {}
        for element in elements:
            call = calls[element.name]
            hook = module.get_submodule(element.name).register_forward_hook(_without(call.branch and not call.residual))
            try:
                scores[element.name] = (mean_loss(context, self.num_batches) - whole).reshape(1)
            finally:
                hook.remove()
            require_finite(f"loss without {element.name}", scores[element.name])
        return Measurement(scores)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> RemovePlan:
        """See `Method.plan`."""
        return RemovePlan(element.name, float(measurement.scores[element.name]))


def _without(branch: bool) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda module, inputs, output: torch.zeros_like(output) if branch else inputs[0]
