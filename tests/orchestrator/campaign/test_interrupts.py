"""Signals end a campaign gracefully, whatever received them before."""

import os
import signal
import threading
from types import FrameType

from ray import cloudpickle

from coppice.orchestrator.campaign.interrupts import Interrupt


def test_it_can_be_written_down_while_it_listens_whatever_listened_before() -> None:
    """Ray Tune writes its stoppers down every few minutes; a handler of Ray's or of a notebook's cannot be written."""
    lock, told = threading.Lock(), []

    def earlier(number: int, frame: FrameType | None) -> None:
        with lock:
            told.append(number)

    before = signal.signal(signal.SIGTERM, earlier)
    try:
        interrupt = Interrupt(lock.locked)
        with interrupt.listening():
            assert cloudpickle.loads(cloudpickle.dumps(interrupt)).signal is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.signal == "SIGTERM" and interrupt.stop_all() and not told
            os.kill(os.getpid(), signal.SIGTERM)
            assert told == [signal.SIGTERM], "a second signal acts as it did before"
        assert signal.getsignal(signal.SIGTERM) is earlier
    finally:
        signal.signal(signal.SIGTERM, before)
