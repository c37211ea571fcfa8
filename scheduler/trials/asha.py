"""Asynchronous successive halving (Li et al., 2020, arXiv 1810.05934, algorithm 2) over training FLOPs or epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import ASHAScheduler

ARGUMENTS = ("max_epochs", "grace_epochs", "max_compute", "grace_compute", "grace", "reduction_factor")
CLOCKS = {"epochs": "epoch", "compute": "compute"}
"""What budgets are counted in, as arguments call it, and the name under which a trial reports it."""


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
        self.first_rung = (clock, grace)

    def rungs(self) -> dict[float, dict[str, float]]:
        """Score by trial of each rung, by its amount; scores are negated where the mode is `min`."""
        return {float(amount): dict(recorded) for amount, recorded in self._brackets[0]._rungs}


def build_asha(arguments: Mapping[str, Any], metric: str, mode: str, epochs: int | None = None) -> Asha:
    """ASHA from a campaign file: `asha`, `{asha: {max_epochs: 60, grace_epochs: 4}}` or `{asha: {max_compute: 2e15}}`.

    Args:
        arguments: the largest budget, in epochs or in FLOPs, and the least one that a trial is judged at (`grace` is in the unit
            of the largest); each rung is `reduction_factor` times the one below.
        metric: reported name of what is compared.
        mode: `max` or `min`.
        epochs: of the longest trial: the largest budget where none is given.

    Raises:
        ValueError: an argument is unknown or out of range, or both clocks are named, or neither and there are no epochs.
    """
    if unknown := sorted(set(arguments) - set(ARGUMENTS)):
        raise ValueError(f"scheduler asha takes {list(ARGUMENTS)}, but got {unknown}.")
    clock, given = _clock(arguments), {name: _number(name, value) for name, value in arguments.items()}
    maximum = given.get(f"max_{clock}", None if clock == "compute" else epochs)
    if maximum is None:
        raise ValueError(f"scheduler asha needs max_{clock}, the most that a trial gets, but got {sorted(arguments)}.")
    factor = given.get("reduction_factor", 4.0)
    if factor <= 1:
        raise ValueError(f"reduction_factor > 1 must hold, but got reduction_factor={factor:g}.")
    least = max(1.0, maximum / factor**3) if clock == "epochs" else maximum / factor**3
    grace = given.get(f"grace_{clock}", given.get("grace", least))
    if not 0 < grace < maximum:
        raise ValueError(
            f"0 < grace_{clock} < max_{clock} must hold, or ASHA could end no trial early, but got grace_{clock}={grace:g}, "
            f"max_{clock}={maximum:g}."
        )
    return Asha(CLOCKS[clock], maximum=maximum, grace=grace, factor=factor, metric=metric, mode=mode)


def _clock(arguments: Mapping[str, Any]) -> str:
    """What the arguments count in: `epochs`, or `compute` where one of them says so.

    Raises:
        ValueError: arguments of both, or two for one thing.
    """
    named = {clock: [f"{what}_{clock}" for what in ("max", "grace") if f"{what}_{clock}" in arguments] for clock in CLOCKS}
    if all(named.values()):
        raise ValueError(f"scheduler asha counts epochs or compute, not both, but got {named['epochs'] + named['compute']}.")
    clock = "compute" if named["compute"] else "epochs"
    if "grace" in arguments and f"grace_{clock}" in arguments:
        raise ValueError(f"grace is grace_{clock} here; give one of them.")
    return clock


def _number(name: str, value: Any) -> float:
    """A finite number; YAML takes some for texts."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"scheduler asha: {name} must be a number, but got {value!r}.")
    return number
