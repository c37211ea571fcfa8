"""What the end of a Slurm job says: whether its trial is to blame, whether its node is, and what it wrote last."""

from __future__ import annotations

from pathlib import Path

from coppice.slurm.broker.work import LAUNCH_FAILED, TrackedWork

BLAMELESS = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "CANCELLED", LAUNCH_FAILED, "UNKNOWN")
"""Ends of jobs that say nothing about their trial."""
NODE_STATES = ("NODE_FAIL", "BOOT_FAIL")
"""Ends of jobs that are the fault of a node."""
DEAD_ON_ARRIVAL = 3
"""After so many jobs in a row that ended before their trials began, on as many nodes or of one trial, the fault is with all."""


class JobsKeepDying(RuntimeError):
    """No job of the campaign gets as far as its trial; the message shows why."""


def last_lines(folder: Path, tracked: TrackedWork, count: int) -> str:
    """The last `count` lines that a job has written; `folder` is submitit's."""
    job = tracked.attempt.job if tracked.attempt else ""
    for path in sorted(folder.glob(f"{job}_*_log.out")):
        text = path.read_text(errors="replace").strip()
        if text:
            return "\n".join("  " + line for line in text.split("\n")[-count:])
    return f"  (nothing: is {folder} on a file system that the nodes share?)"
