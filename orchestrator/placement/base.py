"""PURPOSE"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OpenPlacement:
    """Where trials run.

    Attributes:
        trainable: what Ray Tune runs for each trial.
        capacity: how many trials may be under way at a time.
        reuse_workers: whether a worker that has ended a trial takes the next one.
    """

    trainable: type
    capacity: int
    reuse_workers: bool = False


LOCAL = ("cpus", "gpus", "dashboard")


def _known(name: str, arguments: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := sorted(set(arguments) - set(known)):
        raise ValueError(f"placement {name} takes {sorted(known)}, but got {unknown}.")


JOB = ("site", "account", "gpu_type", "memory_gb", "poll_s", "parallel", "cpus", "dashboard")


POOL = ("site", "account", "gpu_type", "memory_gb", "nodes", "gpus", "cpus", "hours", "poll_s", "dashboard", "address")


PLACEMENTS: dict[str, Sequence[str]] = {"local": LOCAL, "job": JOB, "pool": POOL}
