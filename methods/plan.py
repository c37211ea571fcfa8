"""Plans: what will change in a network. Frozen values; nothing here touches a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

Removal = Literal["immediate", "absorb", "merge"]


@dataclass(frozen=True)
class GrowPlan:
    """Add `count` units to an element (channel, head or group level).

    What a plan does not say is filled so that the function stays the same: new producers by `produce`, new consumers zero.

    Attributes:
        element: name of the element.
        count: number of new units, a multiple of its quantum.
        sources: for each new unit the old unit it is a copy of (Net2Wider); consumers are then divided among the copies.
        values: `"tensor:dim"` -> the new slices along that dimension, other dimensions at their old size.
        produce: how new producer rows are filled where `values` is silent.
        consume: how new consumer columns are filled where `values` is silent; `zero` preserves the function.
        scale: standard deviation of non-zero fills, relative to kaiming-normal of the resized tensor.
        noise: relative noise on copies (breaks the symmetry of Net2Wider).
        seed: of the random fills.
        predicted_gain: first-order decrease of the loss, when the method predicts one.
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
    """

    element: str
    units: tuple[int, ...]
    removal: Removal = "immediate"
    constants: tuple[float, ...] = ()
    merge: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    predicted_loss: float | None = None


@dataclass(frozen=True)
class InsertPlan:
    """Put a new module after an existing one (an insertion point, `after:<module>`).

    Attributes:
        element: name of the insertion point.
        kind: a name of `methods.surgery.layers.KINDS` (`identity_linear`, `identity_conv`, `residual_linear`, `residual_conv`,
            `duplicate`).
        arguments: JSON-able arguments of that kind.
        seed: of the random fills.
    """

    element: str
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    predicted_gain: float | None = None


@dataclass(frozen=True)
class RemovePlan:
    """Take out a layer or a block; its input is passed on in its place (or zero, for a branch beside a skip path)."""

    element: str
    predicted_loss: float | None = None


@dataclass(frozen=True)
class MaskPlan:
    """Set the masks of weights: True keeps. Shapes do not change."""

    masks: Mapping[str, Tensor]
    predicted_loss: float | None = None

    @property
    def element(self) -> str:
        """Names of the masked tensors."""
        return ", ".join(self.masks)


Plan = GrowPlan | PrunePlan | InsertPlan | RemovePlan | MaskPlan
