"""What selections are given and what they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.selection.amount import Amount


@dataclass(frozen=True)
class Permissible:
    """An element that may be changed, and by how many units at most (`most` > 0, a multiple of the element's quantum)."""

    element: Element
    most: int


@dataclass(frozen=True)
class Candidate:
    """An element that a method offers to change.

    Attributes:
        element: which.
        scores: see `coppice.methods.method.Measurement.scores`; empty when the method does not predict.
        most: how many units may be added (limit) or removed (size - minimum), a multiple of the quantum.
        seed_size: size in the network before any change, the base of `fraction of the seed network`.
        parameters_per_unit: parameters that one unit adds or removes.
        flops_per_unit: FLOPs of one forward of one sample that one unit adds or removes.
        active: units that there are now: the element's size, or the weights that are not masked.
        advised: how many units the method itself would add or remove; None when it does not say.
        shape: of the tensor, where the element is a tensor's weights.
        latency_per_unit: measured seconds of one forward that one unit adds or removes; None unless the selection
            `needs_latency`.
    """

    element: Element
    scores: Tensor
    most: int
    seed_size: int
    parameters_per_unit: float
    flops_per_unit: float
    active: int
    advised: int | None = None
    shape: tuple[int, ...] = ()
    latency_per_unit: float | None = None


@dataclass(frozen=True)
class Limit:
    """What an adaptation may spend (growing) or must leave (pruning); None means no limit."""

    parameters: float | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Choice:
    """Units of one element: positions of offered new units (growing) or indices of units to remove (pruning)."""

    element: str
    units: tuple[int, ...]


class Selection(ABC):
    """Where and how many. Frozen values in, frozen values out.

    Class attributes:
        why: what it is good for, in a sentence.
        paper: where it comes from.
        by_element: whether the amount is that of each chosen element; otherwise of all together.
    """

    why: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    by_element: ClassVar[bool] = True

    @property
    def needs_latency(self) -> bool:
        """Whether candidates must come with a measured `latency_per_unit`."""
        return False

    @abstractmethod
    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """Choose units.

        Args:
            kind: `grow` or `prune`.
            candidates: what is offered.
            amount: how many: of each chosen element, or of all candidates together where the selection ranks them all.
            limit: most parameters/FLOPs the choice may add; for pruning the most it may remove.
            turn: how often this adaptation has acted before (round robin).
        """
