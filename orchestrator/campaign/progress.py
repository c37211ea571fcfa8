"""Tells the caller of a campaign how its trials stand, a few times a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray import tune

from orchestrator.status import StatusBoard, TrialStatus


class ProgressCallback(tune.Callback):
    """Calls `report` with the status of all trials, at most every `every_s` seconds, and at the end."""

    def __init__(self, board: StatusBoard, report: Callable[[list[TrialStatus]], None], every_s: float) -> None:
        self._board, self._report, self._every_s = board, report, every_s
        self._due = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Ray Tune's loop turns at least ten times a second."""
        if time.monotonic() >= self._due:
            self._report(self._board.read(running=True))
            self._due = time.monotonic() + self._every_s

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """The last state."""
        self._report(self._board.read(running=True))
