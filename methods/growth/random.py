"""New units with random weights: the control arm of every growth experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from methods.graph.values import Element
from methods.method import Context, Measurement, Method, parameter
from methods.plan import GrowPlan


@dataclass(frozen=True)
class Random(Method):
    """Random producers, zero consumers (or the other way round, or neither).

    Zero fan-out preserves the function for every activation and with BatchNorm between. Zero fan-in is refused where
    BatchNorm follows: the batch variance of a dead channel is 0, so BatchNorm would multiply its gradient by 1/sqrt(eps).
    """

    kind = "grow"
    levels = ("channel", "head", "group")
    paper = "control arm; zero fan-out: Evci et al. 2022 (GradMax), 'inverse' rows of the WRN ablation"
    preserves = True
    batch_norm = "zero fan-out by default: nothing new reaches the next layer; zero fan-in is refused before BatchNorm"

    fill: str = parameter("kaiming", "distribution of the non-zero side", choices=("kaiming", "normal", "orthogonal"))
    zero: str = parameter("fan_out", "which side starts at zero", choices=("fan_out", "fan_in", "none"))
    scale: float = parameter(1.0, "deviation relative to the distribution's own", low=0.01, high=4.0, log=True)

    def accepts(self, context: Context, element: Element) -> str | None:
        """As every method; zero fan-in needs an element without BatchNorm."""
        if self.zero == "fan_in" and has_batch_norm(context, element):
            return "zero fan-in before BatchNorm multiplies gradients by 1/sqrt(eps); use zero: fan_out"
        return super().accepts(context, element)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Predicts nothing."""
        return Measurement({e.name: torch.empty(0) for e in elements})

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """`len(units)` new units."""
        seed = int(torch.randint(2**62, (), generator=context.generator))
        return GrowPlan(
            element.name,
            len(units),
            produce="zero" if self.zero == "fan_in" else self.fill,  # type: ignore[arg-type]
            consume="zero" if self.zero == "fan_out" else self.fill,  # type: ignore[arg-type]
            scale=self.scale,
            seed=seed,
        )


def has_batch_norm(context: Context, element: Element) -> bool:
    """Whether running statistics belong to the element's channels."""
    atoms = context.network.graph().atoms
    return any(o.role in ("mean", "var") for m in element.moves for o in atoms[m.atom].occurrences)
