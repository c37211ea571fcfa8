"""Signals end a campaign gracefully, whatever received them before."""

import os
import signal
import threading
from types import FrameType

from ray import cloudpickle

from coppice.orchestrator.campaign.interrupts import Interrupt
from coppice.orchestrator.campaign.tune_stopper import InterruptStopper


def test_it_can_be_written_down_while_it_listens_whatever_listened_before() -> None:
    """Ray Tune writes its stoppers down every few minutes; a handler of Ray's or of a notebook's cannot be written."""
    lock, told = threading.Lock(), []

    def earlier(number: int, frame: FrameType | None) -> None:
        with lock:
            told.append(number)

    before = signal.signal(signal.SIGTERM, earlier)
    try:
        interrupt = Interrupt()
        stopper = InterruptStopper(interrupt, lambda: str(lock.locked() or ""))
        with interrupt.listening():
            assert not cloudpickle.loads(cloudpickle.dumps(stopper)).stop_all()
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.reason == "SIGTERM" and stopper.stop_all() and not told
            os.kill(os.getpid(), signal.SIGTERM)
            assert told == [signal.SIGTERM], "a second signal acts as it did before"
        assert signal.getsignal(signal.SIGTERM) is earlier
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_a_library_has_taken_is_received_again() -> None:
    """Ray and Ray Tune take signals when they start."""
    interrupt = Interrupt()
    stopper = InterruptStopper(interrupt)
    with interrupt.listening():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        assert not stopper.stop_all()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stopper.stop_all() and interrupt.reason == "SIGUSR1"


def test_what_else_ends_a_campaign_is_its_reason() -> None:
    interrupt = Interrupt()
    assert InterruptStopper(interrupt, lambda: "", lambda: "the end of a raylet").stop_all()
    assert interrupt.reason == "the end of a raylet"


def test_a_terminal_that_is_gone_ends_it_unless_it_was_to_outlive_that() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        for first, reason in ((signal.SIG_DFL, "SIGHUP"), (signal.SIG_IGN, None)):
            signal.signal(signal.SIGHUP, first)
            interrupt = Interrupt()
            with interrupt.listening():
                os.kill(os.getpid(), signal.SIGHUP)
                InterruptStopper(interrupt).stop_all()
                assert interrupt.reason == reason
            assert signal.getsignal(signal.SIGHUP) == first
    finally:
        signal.signal(signal.SIGHUP, before)
