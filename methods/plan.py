"""Plans: what will change in a network. Frozen values; nothing here touches a network.

As bytes a plan is one safetensors file with a JSON head, so that one process can decide and others can do the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from safetensors.torch import load, save
from torch import Tensor

Removal = Literal["immediate", "absorb", "merge"]


@dataclass(frozen=True)
class GrowPlan:
    """Add `count` units to an element (channel, head or group level).

    What a plan does not say is filled so that the function stays the same: new producers by `produce`, new consumers zero.

    Attributes:
        element: name of the element.
        count: number of new units, a multiple of its quantum.
        sources: for each new unit the old unit it is a copy of (Net2Wider), or -1 for one that copies none; consumers are then
            divided among the copies.
        values: `"tensor:dim"` -> the new slices along that dimension, other dimensions at their old size.
        offsets: likewise, what is added to the new slices after they were filled (copies that move away from their sources).
        produce: how new producer rows are filled where `values` is silent.
        consume: how new consumer columns are filled where `values` is silent; `zero` preserves the function.
        scale: standard deviation of non-zero fills, relative to kaiming-normal of the resized tensor.
        noise: relative noise on copies (breaks the symmetry of Net2Wider).
        seed: of the random fills.
        predicted_gain: first-order decrease of the loss, when the method predicts one.
        adjust: see `PrunePlan.adjust`.
    """

    element: str
    count: int
    sources: tuple[int, ...] = ()
    values: Mapping[str, Tensor] = field(default_factory=dict)
    produce: Literal["kaiming", "normal", "orthogonal", "zero"] = "kaiming"
    consume: Literal["zero", "kaiming", "normal", "orthogonal"] = "zero"
    scale: float = 1.0
    noise: float = 0.0
    seed: int = 0
    predicted_gain: float | None = None
    adjust: Mapping[str, Tensor] = field(default_factory=dict)
    offsets: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class PrunePlan:
    """Remove units of an element (channel, head or group level).

    Attributes:
        element: name of the element.
        units: which units go.
        removal: `immediate`; `absorb` folds the constant that a removed channel carries into the consumers' biases;
            `merge` adds the consumers' columns of unit i, times a factor, to those of a kept unit j.
        constants: with `absorb`: for each removed unit, the constant that its consumers see.
        merge: with `merge`: removed unit -> (kept unit, factor).
        predicted_loss: increase of the loss, when the method predicts one.
        adjust: tensor name -> what is added to its entries, at its old shape, before units come or go.
    """

    element: str
    units: tuple[int, ...]
    removal: Removal = "immediate"
    constants: tuple[float, ...] = ()
    merge: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    predicted_loss: float | None = None
    adjust: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class InsertPlan:
    """Put a new module after an existing one (an insertion point, `after:<module>`).

    Attributes:
        element: name of the insertion point.
        kind: a name of `coppice.methods.surgery.layers.KINDS` (`identity_linear`, `identity_conv`, `residual_linear`,
            `residual_conv`, `duplicate`).
        arguments: JSON-able arguments of that kind.
        seed: of the random fills.
        values: name of a tensor inside the new module -> what it starts with, in place of what the kind says; where the network
            has grown since the plan was made, the entries of the channels added last are zero.
    """

    element: str
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    predicted_gain: float | None = None
    values: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RemovePlan:
    """Take out a layer or a block; its input is passed on in its place (or zero, for a branch beside a skip path)."""

    element: str
    predicted_loss: float | None = None


@dataclass(frozen=True)
class MaskPlan:
    """Set the masks of weights: True keeps. Shapes do not change. `adjust` is added before (see `PrunePlan.adjust`)."""

    masks: Mapping[str, Tensor]
    predicted_loss: float | None = None
    predicted_gain: float | None = None
    adjust: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def element(self) -> str:
        """Names of the masked tensors."""
        return ", ".join(self.masks)


Plan = GrowPlan | PrunePlan | InsertPlan | RemovePlan | MaskPlan

FORMAT = "plan/1"
KINDS: dict[str, type] = {
    "grow": GrowPlan,
    "prune": PrunePlan,
    "insert": InsertPlan,
    "remove": RemovePlan,
    "mask": MaskPlan,
}
_TENSORS = ("values", "offsets", "masks", "adjust")


def plan_to_json(plan: Plan) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The plan as a JSON-able dictionary, and its tensors by name."""
    kind = next(name for name, cls in KINDS.items() if type(plan) is cls)
    head: dict[str, Any] = {"format": FORMAT, "plan": kind}
    tensors: dict[str, Tensor] = {}
    for f in fields(plan):
        value = getattr(plan, f.name)
        if f.name in _TENSORS:
            tensors |= {f"{f.name}/{name}": t.detach().cpu().contiguous() for name, t in value.items()}
        elif f.name == "merge":
            head[f.name] = [[unit, kept, factor] for unit, (kept, factor) in value.items()]
        else:
            head[f.name] = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
    return head, tensors


def plan_from_json(head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Plan:
    """The plan that `plan_to_json` was given.

    Raises:
        ValueError: not a plan of this format, or one with fields that its kind does not have.
    """
    values = dict(head)
    form, kind = values.pop("format", None), values.pop("plan", None)
    if form != FORMAT or kind not in KINDS:
        raise ValueError(f"a plan must have format {FORMAT} and one of the kinds {sorted(KINDS)}, but has {form!r}, {kind!r}.")
    cls: Any = KINDS[kind]
    known = {f.name for f in fields(cls)}
    if not values.keys() <= known:
        raise ValueError(f"a {kind} plan has the fields {sorted(known)}, but got {sorted(values.keys() - known)} as well.")
    for field_name in known.intersection(_TENSORS):
        prefix = f"{field_name}/"
        values[field_name] = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    if "merge" in values:
        values["merge"] = {unit: (kept, factor) for unit, kept, factor in values["merge"]}
    plan: Plan = cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    return plan


def plan_to_bytes(plan: Plan) -> bytes:
    """The plan as one safetensors file whose metadata holds the rest of it."""
    head, tensors = plan_to_json(plan)
    return save(tensors, metadata={"plan": json.dumps(head, allow_nan=False), "order": json.dumps(list(tensors))})


def plan_from_bytes(data: bytes) -> Plan:
    """The plan that `plan_to_bytes` was given, exactly.

    Raises:
        ValueError: the bytes hold no plan.
    """
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {}) if 0 < length <= len(data) - 8 else {}
    if "plan" not in metadata:
        raise ValueError("the bytes must be what plan_to_bytes returned, but they hold no plan.")
    tensors = load(data)
    return plan_from_json(json.loads(metadata["plan"]), {name: tensors[name] for name in json.loads(metadata["order"])})
