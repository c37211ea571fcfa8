"""Ctrl-C and the signals of a batch system end a campaign gracefully."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ray import tune

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupt(tune.Stopper):
    """Ends the Tune run once one of `SIGNALS` has arrived, or the campaign was cancelled.

    A second signal acts as it did before the campaign began.

    Args:
        cancelled: whether nobody wants the campaign any more; asked once a second.
    """

    def __init__(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        self.signal: str | None = None
        self._cancelled, self._ask_at = cancelled, 0.0
        self._receive: Callable[[int, FrameType | None], None] | None = None

    def __reduce__(self) -> tuple[type[Interrupt], tuple[()]]:
        """Ray Tune writes it down and nobody reads it again; the handlers that were there before cannot be written."""
        return Interrupt, ()

    def __call__(self, trial_id: str, result: dict) -> bool:
        """No single trial is stopped."""
        return False

    def stop_all(self) -> bool:
        """Whether to end the run."""
        if self.signal is None and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + 1.0
            self._receive_again()
            if self._cancelled():
                self.signal = self.signal or "cancelled"
        return self.signal is not None

    def _receive_again(self) -> None:
        """Ray Tune takes SIGUSR1 for itself when it starts, and would end without a word of it to anyone."""
        if self._receive is not None and signal.getsignal(signal.SIGUSR1) is not self._receive:
            signal.signal(signal.SIGUSR1, self._receive)

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

        self._receive = receive
        for number in SIGNALS:
            signal.signal(number, receive)
        try:
            yield
        finally:
            self._receive = None
            for known, handler in before.items():
                signal.signal(known, handler)
