"""Sums over training steps that are shaped like tensors of the network and follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from coppice.methods.companion import Companion
from coppice.methods.surgery.changes import TensorChange, followed


class StepSums(Companion):
    """Tables of float32 tensors by parameter name; new entries of a resized tensor start at 0.

    Attributes:
        tables: table -> parameter name -> tensor of the parameter's shape.
        steps: parameter name -> training steps that went in.
    """

    def __init__(self, *tables: str) -> None:
        self.tables: dict[str, dict[str, Tensor]] = {table: {} for table in tables}
        self.steps: dict[str, int] = {}

    def seen(self, name: str, like: Tensor) -> None:
        """Count a step of a parameter; its tensors start at 0, and come from a checkpoint to where the parameter is."""
        self.steps[name] = self.steps.get(name, 0) + 1
        for table in self.tables.values():
            if name not in table:
                table[name] = torch.zeros_like(like, dtype=torch.float32)
            elif table[name].device != like.device:
                table[name] = table[name].to(like.device)

    def tensors(self) -> dict[str, Tensor]:
        """See `Companion.tensors`."""
        sums = {f"{table}/{name}": t for table, held in self.tables.items() for name, t in held.items()}
        return sums | {f"steps/{name}": torch.tensor(count) for name, count in self.steps.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Companion.load`."""
        split = {key: key.partition("/")[::2] for key in tensors}
        self.tables = {t: {n: tensors[key].clone() for key, (of, n) in split.items() if of == t} for t in self.tables}
        self.steps = {n: int(tensors[key]) for key, (of, n) in split.items() if of == "steps"}

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """See `Follower.resized`."""
        for table in self.tables.values():
            for change in changes if name in table else ():
                table[name] = followed(table[name], change)

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """See `Follower.removed`."""
        self.steps.pop(name, None)
        for table in self.tables.values():
            table.pop(name, None)
