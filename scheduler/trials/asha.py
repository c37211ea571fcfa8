"""Asynchronous successive halving (Li et al., 2020, arXiv 1810.05934, algorithm 2) over training FLOPs or epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import ASHAScheduler

ARGUMENTS = ("max_compute", "grace_compute", "max_epochs", "grace_epochs", "reduction_factor")


class Asha(ASHAScheduler):
    """Successive halving without brackets.

    A report counts for the highest rung that it reaches and no earlier one, so a trial that leaps rungs as its network grows
    is not judged there later; the largest budget is a criterion of its own (`stop_at`).

    Args:
        clock: name of the reported, cumulative amount that counts: `compute` or `epoch`.
        maximum: the largest amount a trial gets, in the clock's unit.
        grace: the amount below which no trial is stopped: the lowest rung.
        factor: each rung is this many times the one below, and one in this many trials goes on.
        metric: reported name of what is compared.
        mode: `max` or `min`.
    """

    def __init__(self, clock: str, *, maximum: float, grace: float, factor: float, metric: str, mode: str) -> None:
        super().__init__(
            time_attr=clock,
            metric=metric,
            mode=mode,
            max_t=maximum,
            grace_period=grace,
            reduction_factor=factor,
            brackets=1,
            stop_last_trials=False,
        )
        self.stop_at = {clock: maximum}

    def rungs(self) -> dict[float, dict[str, float]]:
        """Score by trial of each rung, by its amount; scores are negated where the mode is `min`."""
        return {float(amount): dict(recorded) for amount, recorded in self._brackets[0]._rungs}


def build_asha(arguments: Mapping[str, Any], metric: str, mode: str) -> Asha:
    """ASHA from a campaign file: `{asha: {max_compute: 2e15}}` or `{asha: {max_epochs: 60, grace_epochs: 4}}`.

    Raises:
        ValueError: an argument is unknown or out of range, or not exactly one of `max_compute` and `max_epochs` is given.
    """
    if unknown := sorted(set(arguments) - set(ARGUMENTS)):
        raise ValueError(f"scheduler asha takes {sorted(ARGUMENTS)}, but got {unknown}.")
    clocks = [clock for clock in ("compute", "epochs") if f"max_{clock}" in arguments]
    if len(clocks) != 1:
        raise ValueError(f"scheduler asha needs either max_compute or max_epochs, but got {sorted(arguments)}.")
    clock = clocks[0]
    maximum, factor = float(arguments[f"max_{clock}"]), float(arguments.get("reduction_factor", 4))
    if factor <= 1:
        raise ValueError(f"reduction_factor > 1 must hold, but got reduction_factor={factor:g}.")
    grace = float(arguments.get(f"grace_{clock}", maximum / factor**3))
    if clock == "epochs":
        grace = max(grace, 1.0)
    if not 0 < grace < maximum:
        raise ValueError(f"0 < grace_{clock} < max_{clock} must hold, but got grace_{clock}={grace:g}, max_{clock}={maximum:g}.")
    name = "epoch" if clock == "epochs" else clock
    return Asha(name, maximum=maximum, grace=grace, factor=factor, metric=metric, mode=mode)
