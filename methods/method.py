"""What every growth and pruning method is: it measures, then plans. It never changes a network itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.graph.values import Element, Level
from methods.network import LossFunction, Network
from methods.parameters import Parameter, parameter
from methods.plan import Plan

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
"""(number of batches) -> that many (input, target) pairs of training data, the same ones for the same state."""


@dataclass(frozen=True)
class Context:
    """What a method may look at.

    Attributes:
        network: read only for methods.
        batches: training data for statistics.
        loss: mean loss over a batch.
        generator: the only source of randomness (CPU generator).
    """

    network: Network
    batches: Batches
    loss: LossFunction
    generator: torch.Generator


@dataclass(frozen=True)
class Measurement:
    """What a method measured.

    Attributes:
        scores: element name -> a score for each unit. Growing: predicted gain of the 1st, 2nd, ... new unit, descending
            (empty when the method predicts none). Pruning: importance of each existing unit, high = keep.
        data: element name -> tensors the method needs again in `plan`.
    """

    scores: Mapping[str, Tensor]
    data: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


__all__ = ["Batches", "Context", "Measurement", "Method", "Parameter", "parameter"]


class Method(ABC):
    """How: measures candidates, then plans for the chosen ones. Subclasses are frozen dataclasses of `parameter` fields.

    Class attributes:
        kind: `grow` or `prune`.
        levels: element levels it acts on.
        paper: where it comes from, with equation or algorithm.
        preserves: whether its plans leave the function unchanged (exactly, up to rounding).
        batch_norm: what it does when BatchNorm lies between fan-in and fan-out.
    """

    kind: ClassVar[Literal["grow", "prune"]]
    levels: ClassVar[tuple[Level, ...]]
    paper: ClassVar[str]
    preserves: ClassVar[bool]
    batch_norm: ClassVar[str]

    def accepts(self, context: Context, element: Element) -> str | None:
        """None when the method can act on the element, else the reason why not."""
        if not element.permissible:
            return element.reason
        if element.doubt is not None:
            return element.doubt
        if element.level not in self.levels:
            return f"{type(self).__name__} acts on {', '.join(self.levels)}, not on {element.level}"
        if (element.grow if self.kind == "grow" else element.shrink) == "no":
            return f"{element.name} cannot {self.kind}"
        return None

    @abstractmethod
    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Scores of the units of each element. `most` is the largest number of units that will be asked for, by name."""

    @abstractmethod
    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> Plan:
        """The plan for one element.

        `units` are the positions 0..count-1 of the offered new units when growing, the units to remove when pruning.
        """

    def after_backward(self, network: Network) -> None:  # noqa: B027
        """Called after each backward pass, before the optimizer's step (sparsity regularisers add to gradients here)."""
