"""New units with random weights: the control arm of every comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.path import why_not_fan_in
from coppice.methods.measures.site import NoSite, site_of
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.plan import GrowPlan
from coppice.methods.surgery.exactness import keeps_function


@dataclass(frozen=True)
class Random(Method):
    """New units have random weights on one side and zero ones on the other, so that the function stays the same.

    `zero: fan_out` works with any activation and norm. `zero: fan_in` is refused where new units could not learn: behind
    BatchNorm (their gradient would be multiplied by 1/sqrt(eps)) and behind an activation whose derivative at 0 is 0, such as
    ReLU. `zero: none` changes the function.
    """

    kind = "grow"
    levels = ("channel", "head", "group")
    why = "growing at no cost; what every other growth method must beat"
    paper = "control arm; initial values of He et al. 2015 (kaiming), Saxe et al. 2014 (orthogonal)"
    preserves = True
    batch_norm = "zero fan-out: new rows are scale 1, shift 0, mean 0, variance 1; zero fan-in is refused"

    init: str = parameter("kaiming", "distribution of the non-zero weights", choices=("kaiming", "normal", "orthogonal"))
    zero: str = parameter("fan_out", "which side of the new units is zero", choices=("fan_out", "fan_in", "none"))
    scale: float = parameter(1.0, "standard deviation relative to the distribution's own", low=1e-3, high=10.0, log=True)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None:
            return reason
        if self.zero != "none" and not keeps_function(context.network, element):
            return "new units would change the function whatever their weights"
        return self._cannot_learn(context, element) if self.zero == "fan_in" else None

    def _cannot_learn(self, context: Context, element: Element) -> str | None:
        """Why new units with zero fan-in would not learn; None when they would."""
        try:
            site = site_of(context.network, element)
        except NoSite as error:
            return f"zero fan-in cannot be checked here: {error}"
        inputs, _ = next(iter(context.batches(1)))
        return why_not_fan_in(context.network, site, inputs)

    def promises(self) -> bool:
        """See `Method.promises`: without a zero side the function changes."""
        return self.zero != "none"

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """No scores: nothing is measured."""
        return Measurement({e.name: torch.empty(0) for e in elements})

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        seed = int(torch.randint(2**31, (), generator=context.generator))
        produce = "zero" if self.zero == "fan_in" else self.init
        consume = "zero" if self.zero == "fan_out" else self.init
        return GrowPlan(element.name, len(units), produce=produce, consume=consume, scale=self.scale, seed=seed)  # type: ignore[arg-type]
