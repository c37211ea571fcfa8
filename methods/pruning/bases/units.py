"""What pruning of units shares: sums over what belongs to a unit, and the ways in which units go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.measures.statistics import channel_means
from coppice.methods.measures.units import held, sum_per_unit
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import PrunePlan
from coppice.methods.pruning.bases.merging import fan, why_not_merge


@dataclass(frozen=True)
class UnitPruning(Method):
    """Removes units of channels, heads or groups. Subclasses score them."""

    kind = "prune"
    levels = ("channel", "head", "group")
    preserves = False

    removal: str = parameter(
        "immediate",
        "absorb folds the mean of what a removed unit sends on into the consumer's bias; merge adds its outgoing weights, "
        "scaled, to those of the kept unit most like it",
        choices=("immediate", "absorb", "merge"),
    )
    num_batches: int = parameter(4, "batches over which absorbed means are taken", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is None and self.removal == "absorb":
            reason = self._cannot_absorb(context, element)
        if reason is None and self.removal == "merge":
            reason = why_not_merge(context, element)
        return reason

    def _cannot_absorb(self, context: Context, element: Element) -> str | None:
        consumers = {o.tensor.rpartition(".")[0] for o, _ in held(context.network, element, ("consume",))}
        if len(consumers) != 1:
            return f"absorbing needs one consumer, but there are {len(consumers)}"
        (name,) = consumers
        module = context.network.module.get_submodule(name)
        if not isinstance(module, (torch.nn.Linear, torch.nn.modules.conv._ConvNd)) or module.bias is None:
            return f"absorbing needs a linear layer or convolution with a bias, but {name} is none"
        if isinstance(module, torch.nn.modules.conv._ConvNd) and module.groups != 1:
            return f"absorbing needs a plain convolution, but {name} is grouped"
        return None if name in context.network.graph().modules else f"absorbing needs {name} to be called"

    def absorbed(self, context: Context, elements: Sequence[Element]) -> dict[str, dict[str, Tensor]]:
        """For each element the mean that the consumer sees of each unit, when `removal` is `absorb`."""
        if self.removal != "absorb" or not elements:
            return {}
        sites = {}
        for element in elements:
            o, units = next(held(context.network, element, ("consume",)))
            sites[element.name] = (o.tensor.rpartition(".")[0], units)
        means = channel_means(context, sorted({name for name, _ in sites.values()}), self.num_batches)
        constants = {}
        for element in elements:
            name, units = sites[element.name]
            counts = torch.bincount(units[units >= 0], minlength=element.size)
            constants[element.name] = {"means": sum_per_unit(element, means[name], 0, units) / counts}
        return constants

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> PrunePlan:
        """See `Method.plan`."""
        if self.removal == "merge":
            return PrunePlan(element.name, tuple(units), "merge", merge=fan(context, element).nearest(units))
        if self.removal == "immediate":
            return PrunePlan(element.name, tuple(units))
        means = measurement.data[element.name]["means"]
        return PrunePlan(element.name, tuple(units), "absorb", tuple(float(means[u]) for u in units))
