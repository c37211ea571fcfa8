"""What every placement gives to a campaign while it is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class OpenPlacement:
    """Where trials run, now that everything for it is up.

    Attributes:
        trainable: what Ray Tune runs for each trial.
        capacity: how many trials may be under way at a time.
        reuse_workers: whether a worker that has ended a trial takes the next one.
        lost: what has ended that trials cannot do without, such as Ray; empty while all is well.
    """

    trainable: type
    capacity: int
    reuse_workers: bool = False
    lost: Callable[[], str] = lambda: ""
