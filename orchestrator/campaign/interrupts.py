"""Ctrl-C and the signals of a batch system end a campaign gracefully."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from ray import tune

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupt(tune.Stopper):
    """Ends the Tune run once one of `SIGNALS` has arrived. A second one acts as it did before the campaign began."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def __call__(self, trial_id: str, result: dict) -> bool:
        """No single trial is stopped."""
        return False

    def stop_all(self) -> bool:
        """Whether to end the run."""
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Receive the signals meanwhile; only a process's main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {int(number): signal.getsignal(number) for number in SIGNALS}

        def receive(number: int, frame: FrameType | None) -> None:
            self.signal = signal.Signals(number).name
            signal.signal(number, before[number])

        for number in SIGNALS:
            signal.signal(number, receive)
        try:
            yield
        finally:
            for known, handler in before.items():
                signal.signal(known, handler)
