"""How many: an amount, of what, rounded to what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

OF = ("now", "seed", "above", "advised")
FORM = "an amount is a number, `advised`, or one of now, seed, above or advised with a number, and a multiple"


@dataclass(frozen=True)
class Amount:
    """How many units an act adds or removes.

    Attributes:
        value: where it is `of` now or seed, a number of units (an int) or a fraction (a float: 0.25 is a quarter, 1.5 one and a
            half times as many; 1.0 of layers and blocks is one); a score where it is `above`; nothing where it is `advised`.
        of: `now`: of the units that there are. `seed`: of the units in the network before any change. `above`: the units whose
            scores are above the value are added, those below it removed. `advised`: as many as the method says.
        multiple: sizes become multiples of this (8 and 64 suit accelerators), as far as elements allow.

    Raises:
        ValueError: a value that is no finite number, or negative where it counts units; an unknown `of`; a multiple below 1.
    """

    value: float
    of: str = "now"
    multiple: int = 1

    def __post_init__(self) -> None:
        value, multiple = self.value, self.multiple
        if self.of not in OF:
            raise ValueError(f"{FORM}; but got {self.of!r}.")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{FORM}; but got {value!r}.")
        if not math.isfinite(value):
            raise ValueError(f"{FORM}, a finite one; but got {value!r}.")
        if value < 0 and self.of != "above":
            raise ValueError(f"{FORM}, at least 0; but got {value!r}. An amount says how many, grow or prune says which way.")
        if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
            raise ValueError(f"a multiple is a whole number of at least 1; but got {multiple!r}.")

    def scaled(self, value: float) -> Amount:
        """The same with another value, such as a schedule asks for: a number of units stays one, a fraction a fraction."""
        if self.of in ("now", "seed"):
            value = int(value + 0.5) if isinstance(self.value, int) else float(value)
        return replace(self, value=value)

    @staticmethod
    def read(written: float | str | Mapping[str, Any]) -> Amount:
        """An amount as written in a campaign file: `0.1`, `8`, `advised`, `{seed: 0.25}`, `{above: 1e-3, multiple: 8}`.

        Raises:
            ValueError: it is none of these.
        """
        tree: dict[str, Any] = dict(written) if isinstance(written, Mapping) else {}
        if isinstance(written, str):
            tree = {written: 0}
        elif isinstance(written, (int, float)) and not isinstance(written, bool):
            tree = {"now": written}
        multiple = tree.pop("multiple", 1)
        if len(tree) != 1 or next(iter(tree)) not in OF or (isinstance(written, str) and written != "advised"):
            raise ValueError(f"{FORM}; but got {written!r}{_instead(written)}.")
        ((of, value),) = tree.items()
        if isinstance(value, str):
            raise ValueError(f"{FORM}; but got {written!r}{_instead(value)}.")
        return Amount(value, of, multiple)


def _instead(written: Any) -> str:
    """What to write instead of a text that holds a number or a percentage."""
    text = str(written).strip() if isinstance(written, str) else ""
    try:
        return f"; write {float(text.removesuffix('%').strip()) / (100 if text.endswith('%') else 1):g}" if text else ""
    except ValueError:
        return ""
