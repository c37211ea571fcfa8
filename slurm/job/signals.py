"""What Slurm tells a job before it ends it."""

from __future__ import annotations

import signal
from types import FrameType

ENDING = (signal.SIGUSR2, signal.SIGUSR1, signal.SIGTERM)


class Told:
    """Takes note of the signals before a time limit, a preemption or a cancellation, and lets the process go on.

    Attributes:
        signal: name of the last one; empty before there was one.
    """

    def __init__(self) -> None:
        self.signal = ""
        for number in ENDING:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
