"""What every placement gives to a campaign while it is open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OpenPlacement:
    """Where trials run, now that everything for it is up.

    Attributes:
        trainable: what Ray Tune runs for each trial.
        capacity: how many trials may be under way at a time.
        reuse_workers: whether a worker that has ended a trial takes the next one.
    """

    trainable: type
    capacity: int
    reuse_workers: bool = False
