"""The signals that ask this process to end, from the first moment on: Ctrl-C, a terminal that is gone, a batch system."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
Receiver = Callable[[int, FrameType | None], None]


class Interrupted(BaseException):
    """A signal asks this process to end; `str` is its name."""


def raise_interrupted(number: int, frame: FrameType | None) -> None:
    """A receiver that ends whatever is under way. The same signal once more ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    raise Interrupted(signal.Signals(number).name)


@contextlib.contextmanager
def received_by(receiver: Receiver) -> Iterator[None]:
    """Within: the signals go to `receiver`; only a process's main thread can receive any.

    A process that was started to outlive its terminal (`nohup`) goes on when that is gone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ignored = before[signal.SIGHUP] is signal.SIG_IGN
    listened = [number for number in SIGNALS if not (ignored and number is signal.SIGHUP)]
    for number in listened:
        signal.signal(number, receiver)
    try:
        yield
    finally:
        for number in listened:
            signal.signal(number, before[number] or signal.SIG_DFL)
