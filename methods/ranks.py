"""The processes that train one network together, as methods see them: sums over all of them, and rank 0's word for all.

Two rules keep them together. All ranks call the same functions in the same order: nothing that only one of them knows decides
whether sums are taken, what is not finite included. And what a rank works out by itself is rank 0's before it goes into another
sum: equal sums give equal numbers on equal processors only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

T = TypeVar("T")


class Ranks:
    """Processes that hold the same network, each with a GPU of its own. This class is a process that is alone.

    Others implement `sum` and `agree` and set `rank` and `size`; a rank that calls one of them less often than the others leaves
    these waiting.

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

    def number(self, own: float) -> float:
        """The sum over all ranks of a number."""
        if self.size == 1:
            return own
        total = torch.tensor(own, dtype=torch.float64)
        self.sum(total)
        return float(total)

    def from_rank_0(self, value: T) -> T:
        """Rank 0's, of something that JSON can hold (tuples become lists)."""
        if self.size == 1:
            return value
        value = json.loads(self.agree(json.dumps(value).encode() if self.rank == 0 else b""))
        return value

    def same(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rank 0's tensors, by name and in its order; shapes and names may differ from those of this rank.

        Each is where this rank's own tensor of that name is, or on the CPU where it has none.
        """
        if self.size == 1:
            return dict(tensors)
        agreed = tensors_from_bytes(self.agree(tensors_to_bytes(tensors) if self.rank == 0 else b""))
        own = {name: t.device for name, t in tensors.items()}
        return {name: t.to(own.get(name, t.device)) for name, t in agreed.items()}

    def share(self, rows: int) -> slice:
        """Which of so many rows are this rank's: contiguous parts, the first ranks have one more where they do not divide."""
        each, more = divmod(rows, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as one safetensors file that keeps their order."""
    own = {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    return save(own, metadata={"order": json.dumps(list(tensors))})


def tensors_from_bytes(data: bytes) -> dict[str, Tensor]:
    """What `tensors_to_bytes` was given, on the CPU."""
    length = int.from_bytes(data[:8], "little")
    order = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["order"])
    loaded = load(data)
    return {name: loaded[name] for name in order}


ALONE = Ranks()
"""A process that trains a network by itself."""
