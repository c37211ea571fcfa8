"""Notices that every trial fails in the same way: the fault is not theirs, and no further values are spent on it."""

from __future__ import annotations

import re

ALIKE = 3
"""So many failures alike in a row end a campaign that has shown no trial that ends well since it was started or resumed."""
ALIKE_LATER = 10
"""So many end any other, and one whose trials fail by their numbers, which may be the fault of their sampled values."""
BY_VALUES = ("NonFiniteLoss", "ArithmeticError", "FloatingPointError", "OverflowError", "MemoryError", "OutOfMemoryError")
"""Errors that sampled values explain: a learning rate that is too large, a network that is."""
_VARIES = re.compile(r"0x[0-9a-fA-F]+|\d+")


class AlikeFailures:
    """Counts trials that ended in the same error, one after the other.

    Attributes:
        reason: the error that all of them had, once it is clear that the campaign is to end; empty before.
        count: failures alike in a row.
    """

    def __init__(self) -> None:
        self.reason, self.count = "", 0
        self._sign, self._most, self._any_good = "", ALIKE, False

    def good(self) -> None:
        """A trial has ended well."""
        self._any_good, self.count, self._sign = True, 0, ""

    def failed(self, reason: str, others_do_better: bool = False) -> None:
        """A trial has failed. `others_do_better`: whether one that still runs has come further than this one."""
        sign = _VARIES.sub("#", reason.partition("\n")[0])
        self.count = self.count + 1 if sign == self._sign else 1
        by_values = reason.partition(":")[0].rpartition(".")[2].strip() in BY_VALUES
        self._sign, self._most = sign, ALIKE_LATER if self._any_good or by_values else ALIKE
        if self.count >= self._most and not others_do_better:
            self.reason = reason

    @property
    def room(self) -> int | None:
        """How many trials may run at a time while it is about to become clear; None for as many as fit."""
        return max(1, ALIKE - self.count) if self.count and self._most == ALIKE else None
