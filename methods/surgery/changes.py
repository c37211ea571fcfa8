"""What surgery did to single tensors, as values that followers (optimizer, EMA, masks) can repeat."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TensorChange:
    """One tensor was resized along one dimension.

    Attributes:
        tensor: its first name in the network.
        dim: the dimension.
        index: for each new entry the old one, or `NEW` (-1).
        old_size: size of the dimension before.
    """

    tensor: str
    dim: int
    index: tuple[int, ...]
    old_size: int


def followed(tensor: Tensor, change: TensorChange, fill: float = 0.0) -> Tensor:
    """A tensor of the old size along `change.dim`, brought to the new one; new entries are `fill`."""
    index = torch.tensor(change.index, device=tensor.device)
    entries = tensor.index_select(change.dim, index.clamp(min=0))
    return entries.index_fill(change.dim, (index < 0).nonzero().flatten(), fill)


class Follower(ABC):
    """Something that is shaped like the network's parameters and must change with them.

    `apply` calls `prepare` before it touches anything, `snapshot` next, then the calls that say what changed, and `finish`.
    """

    def prepare(self, changing: Mapping[str, Sequence[int]]) -> None:  # noqa: B027
        """Refuse what cannot follow, before anything is touched.

        Args:
            changing: the dimensions that will be resized, by the tensor's name; empty where nothing is resized.

        Raises:
            PlanError: something cannot follow; nothing was touched.
        """

    @abstractmethod
    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """The parameter or buffer `name` was resized in place (identity kept); `changes` are its changed dimensions, in order."""

    def masked(self, name: str, tensor: Tensor, before: Tensor, after: Tensor) -> None:  # noqa: B027
        """The mask of the tensor `name` was set; True is kept. What was not kept before and is kept after is new."""

    def mirror(self) -> nn.Module | None:
        """A copy of the module that is to change in full, just as the network does; None if there is none."""
        return None

    def mirrors(self) -> Sequence[nn.Module]:
        """All such copies, the same ones from `prepare` to `finish`."""
        mirror = self.mirror()
        return [] if mirror is None else [mirror]

    @abstractmethod
    def added(self, name: str, parameter: nn.Parameter) -> None:
        """A new parameter was put into the network."""

    @abstractmethod
    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """A parameter was taken out of the network."""

    def finish(self) -> Sequence[str]:
        """Everything has changed; returns what the event is to say about it."""
        return ()

    @abstractmethod
    def snapshot(self) -> Any:
        """Everything needed to come back to this moment bit by bit."""

    @abstractmethod
    def restore(self, snapshot: Any) -> None:
        """Come back to the moment of the snapshot."""
