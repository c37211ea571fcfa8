"""Which task of its Slurm job a process is."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One task of a job step.

    Attributes:
        rank: its number in the job, from 0.
        size: tasks of the job.
        local: its number on its node.
        address: of the node that the job was started from, which is the first task's.
        cpus: cores of this task.
    """

    rank: int
    size: int
    local: int
    address: str
    cpus: int


def this_task() -> Task:
    """Of this process; outside of Slurm there is one task."""

    def number(name: str, default: int) -> int:
        return int(os.environ.get(name, default))

    address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    rank, size, local = number("SLURM_PROCID", 0), number("SLURM_NTASKS", 1), number("SLURM_LOCALID", 0)
    return Task(rank, size, local, address, number("SLURM_CPUS_PER_TASK", 1))
