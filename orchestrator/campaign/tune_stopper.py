"""Tells Ray Tune that the campaign is to end before it is done."""

from __future__ import annotations

import time
from collections.abc import Callable

from ray import tune

from coppice.orchestrator.campaign.interrupts import Interrupt

ASK_EVERY_S = 1.0


class InterruptStopper(tune.Stopper):
    """Ends the Tune run once there is a reason to.

    Args:
        interrupt: where reasons are noted.
        asked: other reasons, asked for once a second: each returns one, or nothing that is true.
        hopeless: whether this run of trials had better end, which is no reason to end the campaign.
    """

    def __init__(self, interrupt: Interrupt, *asked: Callable[[], str], hopeless: Callable[[], bool] = lambda: False) -> None:
        self._interrupt, self._asked, self._ask_at = interrupt, asked, 0.0
        self._hopeless = hopeless

    def __reduce__(self) -> tuple[type[InterruptStopper], tuple[Interrupt]]:
        """Ray Tune writes it down and nobody reads it again; receivers of signals that were there before cannot be written."""
        return InterruptStopper, (Interrupt(),)

    def __call__(self, trial_id: str, result: dict) -> bool:
        """No single trial is stopped."""
        return False

    def stop_all(self) -> bool:
        """Whether to end the run."""
        if self._interrupt.reason is None and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + ASK_EVERY_S
            self._interrupt.receive_again()
            reason = next((found for ask in self._asked if (found := ask())), None)
            self._interrupt.reason = self._interrupt.reason or reason
        return self._interrupt.reason is not None or self._hopeless()
