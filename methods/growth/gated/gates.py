"""Gates on the units of a layer that a single trained number opens one after the other."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

_SNAP = 1e-9


@dataclass(frozen=True)
class Gate(ABC):
    """From a trained number `value` to the number of units that are `open`, and from that to a gate for each unit.

    Unit of rank r (0, 1, ...) has the gate `ramp(open - r)`: 0 at and below 0. `limit` is a constant of each element that is
    fixed when it starts.

    Attributes:
        strength: weight of the size loss.
        lr: of the plain gradient descent on `value`; 0 means the optimizer's own (of its first group).
        start: units that are open at the start, as a fraction of those that there are.
        detach: the size loss alone moves `value`.
        only: glob pattern of the elements that have a gate; empty means all that can.
    """

    strength: float
    lr: float
    start: float
    detach: bool
    only: str

    @abstractmethod
    def limit(self, size: int) -> float:
        """The constant of an element that starts with `size` units."""

    @abstractmethod
    def raw_open(self, value: float, limit: float) -> float:
        """Units that are open, a real number."""

    @abstractmethod
    def slope(self, value: float, limit: float) -> float:
        """Derivative of `raw_open` with respect to `value`."""

    @abstractmethod
    def value_of(self, units: float, limit: float) -> float:
        """The value at which so many units are open."""

    @abstractmethod
    def pull(self, value: float, limit: float) -> float:
        """Derivative of the size loss with respect to `value`."""

    def least_limit(self, size: int) -> float:
        """The smallest limit with which `size` units can be open."""
        return 0.0

    def most_units(self, limit: float) -> float:
        """Units beyond these are never used."""
        return math.inf

    @abstractmethod
    def ramp(self, n: Tensor) -> Tensor:
        """The gate of each unit, between 0 and 1, from how many units are open beyond it; any shape."""

    @abstractmethod
    def ramp_slope(self, n: Tensor) -> Tensor:
        """Derivative of the gates."""

    def open(self, value: float, limit: float) -> float:
        """`raw_open`, exactly whole where it is whole up to rounding, so that gates that should be 0 are."""
        units = self.raw_open(value, limit)
        return float(round(units)) if abs(units - round(units)) < _SNAP else units


@dataclass(frozen=True)
class SizeGate(Gate):
    """The value is the number of open units itself, N; loss: strength * (N - N_inf)^2.

    Ramp: 0 below 0, sin^2(pi n / (2 spread)) from 0 to spread, 1 above.

    Attributes:
        target: N_inf, in units or as a multiple of the size at the start.
        target_of: `seed` or `units`.
        spread: width of the ramp in units.
    """

    target: float
    target_of: str
    spread: float

    def limit(self, size: int) -> float:
        """The size N_inf that the size loss draws to, in units."""
        return self.target * size if self.target_of == "seed" else self.target

    def raw_open(self, value: float, limit: float) -> float:
        """The trained number itself, N."""
        return value

    def slope(self, value: float, limit: float) -> float:
        """The derivative of N by N, which is 1."""
        return 1.0

    def value_of(self, units: float, limit: float) -> float:
        """The number of units itself, N."""
        return units

    def pull(self, value: float, limit: float) -> float:
        """2 strength (N - N_inf)."""
        return 2.0 * self.strength * (value - limit)

    def ramp(self, n: Tensor) -> Tensor:
        """sin^2(pi n / (2 spread)) between 0 and `spread`, 0 below and 1 above."""
        return (n.clamp(0.0, self.spread) * (math.pi / (2.0 * self.spread))).sin().square().where(n < self.spread, 1.0)

    def ramp_slope(self, n: Tensor) -> Tensor:
        """0 at both ends: N feels no data where no unit is between."""
        inside = (n > 0) & (n < self.spread)
        return torch.where(inside, (n * (math.pi / self.spread)).sin() * (math.pi / (2.0 * self.spread)), 0.0)


@dataclass(frozen=True)
class ControllerGate(Gate):
    """The value is the control c; t = sin^2(pi c / 2) of N_max units are open; loss: strength * (c - 1)^2.

    The first floor(t N_max) gates are 1, the next one is the fraction that is left, the others are 0.

    Attributes:
        most: N_max as a multiple of the size at the start.
    """

    most: float

    def limit(self, size: int) -> float:
        """N_max, at least the size at the start."""
        return float(max(size, round(self.most * size)))

    def least_limit(self, size: int) -> float:
        """N_max is not below the size."""
        return float(size)

    def most_units(self, limit: float) -> float:
        """N_max, which no number of open units passes."""
        return limit

    def raw_open(self, value: float, limit: float) -> float:
        """The open units sin^2(pi c / 2) N_max."""
        return limit * math.sin(math.pi / 2.0 * value) ** 2

    def slope(self, value: float, limit: float) -> float:
        """The derivative N_max dt/dc, with t = sin^2(pi c / 2)."""
        return limit * math.pi / 2.0 * math.sin(math.pi * value)

    def value_of(self, units: float, limit: float) -> float:
        """c between 0 and 1."""
        return 2.0 / math.pi * math.asin(math.sqrt(min(max(units / limit, 0.0), 1.0)))

    def pull(self, value: float, limit: float) -> float:
        """2 strength (c - 1)."""
        return 2.0 * self.strength * (value - 1.0)

    def ramp(self, n: Tensor) -> Tensor:
        """Linear from 0 to 1 over one unit."""
        return n.clamp(0.0, 1.0)

    def ramp_slope(self, n: Tensor) -> Tensor:
        """The derivative to the right: at a whole number of open units it is that of the next one."""
        return ((n >= 0) & (n < 1)).to(n.dtype)
