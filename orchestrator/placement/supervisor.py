"""PURPOSE"""

from __future__ import annotations

from typing import Any, Protocol

from coppice.slurm.broker.work import LAUNCH_FAILED

WITHOUT_PROGRESS = 3
"""How many jobs in a row a trial may lose without a new checkpoint."""


BLAMELESS, BLAMELESS_WITHOUT_PROGRESS = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "CANCELLED", LAUNCH_FAILED, "UNKNOWN"), 10
"""Ends of jobs that say nothing about their trial, and how many of those in a row it may lose."""


DEAD_ON_ARRIVAL = 3
"""After so many jobs in a row that ended before their trials began, on as many nodes or of one trial, the fault is with all."""


NODE_STATES = ("NODE_FAIL", "BOOT_FAIL")


BY_ITSELF = ("finished", "failed")
"""Ends that a trial comes to without being told."""


class JobsDie(RuntimeError):
    """No job of the campaign gets as far as its trial; the message shows why."""


class Replaced(RuntimeError):
    """Another driver has taken over the campaign."""


class Board(Protocol):
    """Looks after trials that run elsewhere: those of `jobs.supervisor` are Slurm jobs, those of `pool.supervisor` Ray tasks."""

    def add(self, task: dict[str, Any]) -> None:
        """Run a trial."""

    def drop(self, key: str) -> None:
        """Nothing more of it is wanted."""

    def over(self, key: str) -> bool:
        """Whether nothing will be written into its folder any more."""

    def poll(self) -> None:
        """Look after all of them; does not wait."""
