"""The processes that train one network together, as methods see them: sums over all of them, and one opinion for all."""

from __future__ import annotations

import torch
from torch import Tensor


class Ranks:
    """Processes that hold the same network, each with a GPU of its own. This class is a process that is alone.

    All of them call `sum` and `agree` equally often and in the same order, whatever each has measured: a process that calls less
    often leaves the others waiting. So nothing that only this process knows may decide whether one of them is called.

    Attributes:
        rank: which of them this process is, 0..size-1.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def sum(self, *tensors: Tensor) -> None:
        """Put into each tensor, in place, its sum over all ranks.

        The tensors have the same shapes and types (floating point or integers, on the CPU or on the network's device, contiguous
        or not) on all ranks, and the sums are bit for bit the same on all of them. NaN and infinity stay what they are.
        """

    def agree(self, data: bytes) -> bytes:
        """The bytes that rank 0 gave, on every rank."""
        return data

    def count(self, own: int) -> int:
        """The sum over all ranks of a number of samples."""
        if self.size == 1:
            return own
        total = torch.tensor(own, dtype=torch.int64)
        self.sum(total)
        return int(total)


ALONE = Ranks()
"""A process that trains a network by itself."""
