"""Plans that wait their turn follow the changes before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from coppice.methods.plan import GrowPlan, MaskPlan, Plan, PrunePlan
from coppice.methods.surgery.changes import Follower, TensorChange, followed


class PendingPlans(Follower):
    """Keeps what plans add in the shape that the network has by now: what is new in another dimension is zero.

    Values that are given for a shape that earlier plans of the same step bring about are left as they are.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._plans = list(plans)

    def next(self) -> Plan | None:
        """Take the next plan; None when there is none left."""
        return self._plans.pop(0) if self._plans else None

    def resized(self, name: str, tensor: Tensor, changes: Sequence[TensorChange]) -> None:
        """See `Follower.resized`."""
        self._plans = [_follow(plan, name, changes) for plan in self._plans]

    def added(self, name: str, parameter: nn.Parameter) -> None:
        """Nothing to do: plans name elements, not modules."""

    def removed(self, name: str, parameter: nn.Parameter) -> None:
        """Nothing to do: plans name elements, not modules."""

    def snapshot(self) -> Any:
        """The plans; they are frozen."""
        return list(self._plans)

    def restore(self, snapshot: Any) -> None:
        """See `Follower.restore`."""
        self._plans = list(snapshot)


def _follow(plan: Plan, name: str, changes: Sequence[TensorChange]) -> Plan:
    if isinstance(plan, (GrowPlan, PrunePlan, MaskPlan)) and name in plan.adjust:
        plan = replace(plan, adjust={**plan.adjust, name: _followed(plan.adjust[name], changes, None)})
    if isinstance(plan, MaskPlan) and name in plan.masks:
        mask = plan.masks[name]
        for c in changes:
            mask = followed(mask, c, fill=True)
        plan = replace(plan, masks={**plan.masks, name: mask})
    if isinstance(plan, GrowPlan):
        plan = replace(
            plan, values=_followed_slices(plan.values, name, changes), offsets=_followed_slices(plan.offsets, name, changes)
        )
    return plan


def _followed_slices(slices: Mapping[str, Tensor], name: str, changes: Sequence[TensorChange]) -> dict[str, Tensor]:
    keys = [key for key in slices if key.rpartition(":")[0] == name]
    return {**slices, **{key: _followed(slices[key], changes, int(key.rpartition(":")[2])) for key in keys}}


def _followed(value: Tensor, changes: Sequence[TensorChange], own: int | None) -> Tensor:
    """A plan's tensor after the tensor it belongs to was resized; its dimension `own` holds new units and stays."""
    for change in changes:
        if change.dim != own and value.shape[change.dim] == change.old_size:
            value = followed(value, change)
    return value
