"""Plans that wait their turn follow the changes before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from methods.plan import GrowPlan, Plan
from methods.surgery.changes import Follower, TensorChange


class PendingPlans(Follower):
    """Keeps the values of growth plans in the shape that the network has by now: what is new in another dimension is zero."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._plans = list(plans)

    def next(self) -> Plan | None:
        """Take the next plan; None when there is none left."""
        return self._plans.pop(0) if self._plans else None

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """See `Follower.resized`."""
        for position, plan in enumerate(self._plans):
            if isinstance(plan, GrowPlan) and any(key.rpartition(":")[0] == name for key in plan.values):
                values = {key: _followed(key, value, name, changes) for key, value in plan.values.items()}
                self._plans[position] = replace(plan, values=values)

    def added(self, name: str, parameter: nn.Parameter) -> None:
        """Nothing to do."""

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """Nothing to do."""

    def snapshot(self) -> Any:
        """The plans; they are frozen."""
        return list(self._plans)

    def restore(self, snapshot: Any) -> None:
        """See `Follower.restore`."""
        self._plans = list(snapshot)


def _followed(key: str, value: Tensor, name: str, changes: Sequence[TensorChange]) -> Tensor:
    tensor, _, own = key.rpartition(":")
    for change in changes if tensor == name else ():
        if change.dim != int(own):
            index = torch.tensor(change.index, device=value.device)
            value = value.index_select(change.dim, index.clamp(min=0))
            value = value.index_fill(change.dim, (index < 0).nonzero().flatten(), 0.0)
    return value
