"""Every event of a trial is written here, with the trial's name, the time and how far it has come."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from coppice.methods.ranks import Ranks
from coppice.orchestrator.folder.events import status_event
from coppice.orchestrator.folder.layout import TrialFolder


class EventWriter:
    """Writes the events of a trial; silent on every rank but 0.

    Attributes:
        clock: seconds since 1970.
        epoch: the last one that was trained.
        num_steps: optimizer steps taken so far.
    """

    def __init__(self, folder: TrialFolder, ranks: Ranks, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.epoch = 0
        self.num_steps = 0
        self._folder = folder
        self._silent = ranks.rank != 0
        self._lines: list[bytes] = []

    def write(self, type: str, **content: Any) -> None:
        """Append one event; `content` may name another epoch than the last.

        Raises:
            Superseded: a newer attempt runs the trial.
        """
        if not self._silent:
            head = {"trial": self._folder.name, "time": self.clock(), "epoch": self.epoch, "step": self.num_steps}
            self._lines.append(self._folder.append_event({"type": type, **head, **content}))

    def write_status(self, status: str, **content: Any) -> None:
        """Append the event that the trial's status is `status` from now on; errors as those of `write`."""
        if not self._silent:
            event = status_event(self._folder.name, status, self.epoch, self.num_steps, at=self.clock(), **content)
            self._lines.append(self._folder.append_event(event))

    def forget_after(self, epoch: int) -> str:
        """Delete events of later epochs: they will be done again; returns what was wrong with the file and is restored."""
        if self._silent:
            return ""
        problem = self._folder.truncate_events(epoch)
        self._lines = [self._folder.events.read_bytes()]
        return problem

    def so_far(self) -> bytes:
        """The file as it must be now, for a checkpoint."""
        return b"".join(self._lines)

    def sync(self) -> None:
        """From now on all events so far survive a power cut."""
        with open(self._folder.events, "rb") as file:
            os.fsync(file.fileno())
