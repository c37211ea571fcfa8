"""How many: an amount, of what, rounded to what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

OF = ("now", "seed", "above", "advised")


@dataclass(frozen=True)
class Amount:
    """How many units an act adds or removes.

    Attributes:
        value: a fraction in (0, 1] or a count (an int, a number above 1, or 1 for layers and blocks) where it is `of` now or
            seed; a score where it is `above`; nothing where it is `advised`.
        of: `now`: of the units that there are. `seed`: of the units in the network before any change. `above`: the units whose
            scores are above the value are added, those below it removed. `advised`: as many as the method says.
        multiple: sizes become multiples of this (8 and 64 suit accelerators), as far as elements allow.
    """

    value: float
    of: str = "now"
    multiple: int = 1

    def scaled(self, value: float) -> Amount:
        """The same with another value, such as a schedule asks for: a number of units stays one, a fraction a fraction."""
        if self.of in ("now", "seed") and (isinstance(self.value, int) or self.value > 1):
            value = int(value + 0.5)
        return replace(self, value=value)

    @staticmethod
    def read(written: float | str | Mapping[str, Any]) -> Amount:
        """An amount as written in a campaign file: `0.1`, `8`, `advised`, `{seed: 0.25}`, `{above: 1e-3, multiple: 8}`.

        Raises:
            ValueError: it is none of these.
        """
        form = "an amount is a number, `advised`, or one of now, seed, above or advised with a number, and a multiple"
        tree: dict[str, Any] = dict(written) if isinstance(written, Mapping) else {}
        if isinstance(written, str):
            tree = {written: 0}
        elif isinstance(written, (int, float)) and not isinstance(written, bool):
            tree = {"now": written}
        multiple = tree.pop("multiple", 1)
        if len(tree) != 1 or next(iter(tree)) not in OF or (isinstance(written, str) and written != "advised"):
            raise ValueError(f"{form}; but got {written!r}.")
        ((of, value),) = tree.items()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (value < 0 and of != "above"):
            raise ValueError(f"{form}, at least 0; but got {written!r}.")
        if not math.isfinite(value):
            raise ValueError(f"{form}, a finite one; but got {written!r}.")
        if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
            raise ValueError(f"a multiple is a whole number of at least 1; but got {multiple!r}.")
        return Amount(value, of, multiple)
