"""`python -m coppice.slurm.ray.start start ...`: Ray's own command, in a process that ends with its parent.

A batch system sends the signal before a time limit to every process of a job. Ray's processes would die of it; they inherit
from here that they ignore it, and whoever started this process decides when it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

SIGNAL_AT_PARENTS_DEATH = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def without_client_server(parameters: Any, head: bool) -> None:
    """Ray calls this with what it is about to start (`RAY_START_HOOK`): one open port less."""
    parameters.ray_client_server_port = None


def main() -> None:
    """Run Ray's own command with this process's arguments."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(SIGNAL_AT_PARENTS_DEATH, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that wanted a Ray has ended.")
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    from ray.scripts.scripts import main as ray

    ray()


if __name__ == "__main__":
    main()
