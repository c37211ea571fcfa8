"""New units as copies of old ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.plan import GrowPlan


@dataclass(frozen=True)
class Net2Wider(Method):
    """Copies random units and divides what they send among the copies (Chen et al. 2016, Net2Net, section 3.1, eq. 3-4).

    Noise that breaks the symmetry is added to the copies' consumers and taken from the originals', so the sum stays the same.
    """

    kind = "grow"
    levels = ("channel", "group")
    paper = "Chen, Goodfellow, Shlens 2016, Net2Net (arXiv 1511.05641), section 3.1, eq. 3-4"
    preserves = True
    batch_norm = "scale, shift and running statistics are copied too: exact in train and eval mode"

    noise: float = parameter(0.02, "relative deviation of the noise on the copies' fan-out", low=1e-4, high=0.5, log=True)

    def accepts(self, context: Context, element: Element) -> str | None:
        """As every method; copies change the statistics of norms across channels, so those elements are refused."""
        if element.grow != "exact":
            return f"copies are not exact there: growing it is {element.grow} ({', '.join(element.compensation) or 'coupled'})"
        return super().accepts(context, element)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Predicts nothing."""
        return Measurement({e.name: torch.empty(0) for e in elements})

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """Copies of `len(units)` units, drawn without repetition as long as there are enough."""
        rounds = -(-len(units) // element.size)
        drawn = torch.cat([torch.randperm(element.size, generator=context.generator) for _ in range(rounds)])
        seed = int(torch.randint(2**62, (), generator=context.generator))
        return GrowPlan(element.name, len(units), sources=tuple(drawn[: len(units)].tolist()), noise=self.noise, seed=seed)
