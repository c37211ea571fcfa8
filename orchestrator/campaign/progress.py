"""Tells whoever wants to know how the trials of a campaign stand, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune

from coppice.orchestrator.operations.status import StatusBoard, TrialStatus

Progress = Callable[[list[TrialStatus]], None]
"""Is given the status of all trials of a campaign."""
MOST_OF_THE_TIME = 0.05
"""Looking at many trials takes at most about this part of the driver's time."""


class ProgressCallback(tune.Callback):
    """Calls each of `reports` with the status of all trials, at most every `every_s` seconds, and at the end."""

    def __init__(self, board: StatusBoard, reports: Sequence[Progress], every_s: float) -> None:
        self._board, self._reports, self._every_s = board, reports, every_s
        self._due = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Ray Tune's loop turns at least ten times a second."""
        began = time.monotonic()
        if began >= self._due:
            self._report()
            ended = time.monotonic()
            self._due = ended + max(self._every_s, (ended - began) / MOST_OF_THE_TIME)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Report the state in which the trials have ended."""
        self._report()

    def _report(self) -> None:
        statuses = self._board.read(running=True)
        for report in self._reports:
            report(statuses)
