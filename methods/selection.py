"""Where, and how many: selections turn scores into choices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from methods.graph.values import Element


@dataclass(frozen=True)
class Candidate:
    """An element that a method offers to change.

    Attributes:
        element: which.
        scores: see `methods.method.Measurement.scores`; empty when the method does not predict.
        room: how many units may be added (limit) or removed (size - minimum), a multiple of the quantum.
        seed_size: size in the network before any change, the base of `fraction of the seed network`.
        parameters_per_unit: parameters that one unit adds or removes.
        flops_per_unit: FLOPs of one forward of one sample that one unit adds or removes.
    """

    element: Element
    scores: Tensor
    room: int
    seed_size: int
    parameters_per_unit: float
    flops_per_unit: float


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
    """Where and how many. Frozen values in, frozen values out."""

    @abstractmethod
    def choose(self, kind: str, candidates: Sequence[Candidate], amount: float, limit: Limit, turn: int) -> list[Choice]:
        """Choose units.

        Args:
            kind: `grow` or `prune`.
            candidates: what is offered.
            amount: fraction in (0, 1] of the current size (of the chosen elements, or of all candidates), or a count >= 1 if int.
            limit: most parameters/FLOPs the choice may add; for pruning the most it may remove.
            turn: how often this adaptation has acted before (round robin).
        """
