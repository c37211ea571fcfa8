"""What did change in a network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One change of a network, with the numbers in it. JSON-able.

    Attributes:
        kind: `grow`, `prune`, `insert`, `remove` or `mask`.
        element: what was changed.
        level: its level.
        count: units added or removed (masked weights for `mask`).
        size_before: units before.
        size_after: units after.
        units: which units were removed (empty when they were added).
        parameters_before: trained parameters of the network before, masked ones not counted.
        parameters_after: and after.
        function_change: max |f_after - f_before| over the certifying batch; None when none was given.
        function_scale: max |f_before| over that batch.
        predicted: gain or loss that the method predicted.
        seconds: how long the change took.
        accepted: False when it was rolled back.
        reason: why it was rolled back.
        gradients: what became of the gradients that all parameters had accumulated: `kept` (zero for new entries) or `dropped`;
            None where there were none.
        notes: what is worth knowing about the followers: which optimizer trains what is new, whose history starts anew.
    """

    kind: str
    element: str
    level: str
    count: int
    size_before: int
    size_after: int
    units: tuple[int, ...]
    parameters_before: int
    parameters_after: int
    function_change: float | None
    function_scale: float | None
    predicted: float | None
    seconds: float
    accepted: bool = True
    reason: str | None = None
    gradients: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A dictionary that json can write."""
        return asdict(self) | {"units": list(self.units), "notes": list(self.notes)}
