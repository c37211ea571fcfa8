"""Which trial goes on: trial schedulers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from coppice.scheduler.trials.asha import Asha, build_asha
from coppice.scheduler.trials.decisions import DecidedOnce, Decision, replay

__all__ = ["Asha", "DecidedOnce", "Decision", "TRIAL_SCHEDULERS", "build_trial_scheduler", "replay"]


def build_none(arguments: Mapping[str, Any], metric: str, mode: str, epochs: int | None = None) -> TrialScheduler:
    """Every trial runs to its end.

    Raises:
        ValueError: there are arguments.
    """
    if arguments:
        raise ValueError(f"scheduler none takes no arguments, but got {sorted(arguments)}.")
    return FIFOScheduler()


TRIAL_SCHEDULERS: dict[str, Callable[[Mapping[str, Any], str, str, int | None], TrialScheduler]] = {
    "none": build_none, "asha": build_asha}


def build_trial_scheduler(
    name: str, arguments: Mapping[str, Any], metric: str, mode: str, epochs: int | None = None
) -> DecidedOnce:
    """The trial scheduler called `name`, comparing `metric` in `mode` (`max` or `min`) over trials of at most `epochs` epochs.

    Raises:
        ValueError: unknown name or argument, or an argument out of range.
    """
    if name not in TRIAL_SCHEDULERS:
        raise ValueError(f"search.scheduler must be one of {sorted(TRIAL_SCHEDULERS)}, but got {name!r}.")
    return DecidedOnce(TRIAL_SCHEDULERS[name](arguments, metric, mode, epochs))
