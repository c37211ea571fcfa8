"""New units that are copies of old ones (Net2WiderNet, Chen, Goodfellow, Shlens 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from coppice.methods.graph.values import Element
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import GrowPlan


@dataclass(frozen=True)
class Net2Wider(Method):
    """Copies random units, BatchNorm rows included; consumers' weights are divided among the copies.

    Noise on a copy's outgoing weights is taken from those of its source, so that the function stays the same while the copies
    no longer receive the same gradients. Each unit is copied once before any is copied twice.
    """

    kind = "grow"
    levels = ("channel", "head", "group")
    why = "a wider network that goes on from exactly the same function, with weights that are already good"
    paper = "Chen, Goodfellow, Shlens 2016, Net2Net, eq. 2-4 (arXiv 1511.05641)"
    preserves = True
    batch_norm = "rows are copied: equal statistics, exact in train and eval mode"

    noise: float = parameter(0.01, "noise on the outgoing weights of copies, relative to their deviation", low=0.0, high=1.0)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None:
            return reason
        if element.grow != "exact":
            return f"copies would change the function ({', '.join(element.compensation) or 'its units are coupled'})"
        return None

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """No scores: copies keep the function, and nothing is measured."""
        return Measurement({e.name: torch.empty(0) for e in elements})

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        rounds = -(-len(units) // element.size)
        order = torch.cat([torch.randperm(element.size, generator=context.generator) for _ in range(rounds)])
        seed = int(torch.randint(2**31, (), generator=context.generator))
        return GrowPlan(element.name, len(units), sources=tuple(order[: len(units)].tolist()), noise=self.noise, seed=seed)
