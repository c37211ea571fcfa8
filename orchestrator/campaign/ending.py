"""Why trials stopped running, and what is done about it when the surroundings were at fault: the campaign waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from coppice.orchestrator.folder.surroundings import Trouble, is_over

LOOK_EVERY_S = 2.0


@dataclass(frozen=True)
class End:
    """How a run of trials ended; all of it empty where every trial has ended.

    Attributes:
        signal: name of the signal that interrupted it.
        trouble: what failed around the trials.
        alike: the error that one trial after the other failed with.
        interrupted: ids of trials that something else than themselves has ended; they go on when the campaign is resumed.
    """

    signal: str | None = None
    trouble: Trouble | None = None
    alike: str = ""
    interrupted: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """What must be mended before the campaign can go on, as a sentence; empty where nothing must."""
        if self.signal:
            return ""
        if self.trouble:
            return f"{_sentence(str(self.trouble))}. Nothing is lost: mend that (make room, for instance), then resume."
        if self.alike:
            return (
                "One trial after the other failed with the same error, so no more are started, and what they would have tried is "
                f"kept: {self.alike.strip().partition(chr(10))[0]}"
            )
        if self.interrupted:
            names = ", ".join(self.interrupted[:8])
            return f"Interrupted by what is not their fault, and tried again by resume: {names}; coppice status says why."
        return ""


def wait_until_over(
    trouble: Trouble, ended: Callable[[], bool], patience_s: float, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Wait until there is room again; False where that took longer than `patience_s`, or `ended` wants it to end."""
    deadline = time.monotonic() + patience_s
    while not ended():
        if is_over(trouble):
            return True
        if time.monotonic() >= deadline:
            return False
        sleep(LOOK_EVERY_S)
    return False


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
