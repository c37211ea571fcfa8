"""Trial schedulers come back from what the trials have reported: Ray Tune itself forgets their state on a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.schedulers import TrialScheduler


@dataclass(frozen=True)
class PastTrial:
    """Stands for a trial of before the restart: what a trial scheduler looks at when it is told a result."""

    trial_id: str
    config: dict[str, Any] = field(default_factory=dict)


def replay(trial_scheduler: TrialScheduler, reports: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Tell `trial_scheduler` again what each trial has reported, so that it knows what it knew before the restart.

    What a trial leaves in the rungs of ASHA depends on its own reports only, so the order between trials does not matter.
    Its decisions are not carried out again: what was stopped has stayed stopped.

    Args:
        trial_scheduler: a new one.
        reports: by trial, its reports from the first to the last.
    """
    for name, reported in reports.items():
        trial = PastTrial(name)
        trial_scheduler.on_trial_add(None, trial)
        for result in reported:
            trial_scheduler.on_trial_result(None, trial, dict(result))
