"""Ctrl-C, a terminal that is gone, the signals of a batch system and what else ends a campaign gracefully, before it is done."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from coppice.orchestrator.end_signals import SIGNALS, received_by


class Interrupt:
    """Takes note of what is to end the campaign.

    A second signal acts as it did before the campaign began.

    Attributes:
        reason: the name of a signal, or what has happened; None while nothing has.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._before: dict[int, Any] = {}
        self._listened: list[signal.Signals] = []

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        self.reason = signal.Signals(number).name
        signal.signal(number, self._before[number] or signal.SIG_DFL)

    def receive_again(self) -> None:
        """Libraries take signals for themselves when they start, and would end without a word of it to anyone."""
        for number in self._listened:
            if self.reason is None and signal.getsignal(number) != self.receive:
                signal.signal(number, self.receive)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Receive the signals meanwhile; only a process's main thread can."""
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        with received_by(self.receive):
            self._listened = [number for number in SIGNALS if signal.getsignal(number) == self.receive]
            try:
                yield
            finally:
                self._listened = []
