"""What Slurm tells a job before it ends it."""

from __future__ import annotations

import signal
from types import FrameType

ENDING = (signal.SIGUSR2, signal.SIGUSR1, signal.SIGTERM)


class EndSignals:
    """Takes note of the signals before a time limit, a preemption or a cancellation, and lets the process go on.

    Attributes:
        last: name of the last one; empty before there was one.
    """

    def __init__(self) -> None:
        self.last = ""
        for number in ENDING:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.last = signal.Signals(number).name
