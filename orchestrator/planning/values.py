"""Whether numbers of optimizers, schedules, amounts and removals are ones that somebody can mean, and what to write instead."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping
from typing import Any

from coppice.methods.selection.amount import Amount
from coppice.orchestrator.config.models import AdaptationSpec, Named, TrainingSpec
from coppice.orchestrator.config.space import DISTRIBUTIONS
from coppice.orchestrator.planning.problems import Faults
from coppice.orchestrator.trial.optimizers import LR_SCHEDULES, OPTIMIZERS

RANGES: dict[str, tuple[float, float]] = {
    "lr": (1e-30, 1e6), "momentum": (0, 1), "alpha": (0, 1), "weight_decay": (0, 1e6), "eps": (0, 1e6), "dampening": (0, 1)}
"""Smallest and largest value of arguments of optimizers; 1 itself is refused where it would forget nothing."""
BELOW_1 = ("momentum", "alpha", "betas")
MOST_TIMES = 10.0
"""Largest fraction that an act may add: ten times what there is."""
MOST_UNITS = 10**9


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _no_number(value: Any) -> str:
    """What stands where a number must, and what may have been meant."""
    if isinstance(value, Mapping) and value:
        near = difflib.get_close_matches(str(next(iter(value))), DISTRIBUTIONS, n=1)
        return f"must be a number or a distribution, but is {value!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    try:
        return f"must be a number, but is {value!r}; write {float(value):g}, without quotes"
    except (TypeError, ValueError):
        return f"must be a number, but is {value!r}"


def check_optimizer_values(named: Named) -> Faults:
    """The kind and the size of what the optimizer is given."""
    if named.name not in OPTIMIZERS:
        return
    known = inspect.signature(OPTIMIZERS[named.name]).parameters
    for key, value in named.arguments.items():
        if key in known and (said := _optimizer_value(key, value, str(known[key].annotation))):
            yield ("training", "optimizer", named.name, key), said


def _optimizer_value(key: str, value: Any, annotation: str) -> str | None:
    if "bool" in annotation:
        hint = "; write true or false" if isinstance(value, str) else ""
        return None if isinstance(value, bool) or value is None else f"must be true or false, but is {value!r}{hint}"
    if key == "betas":
        fine = isinstance(value, (list, tuple)) and len(value) == 2 and all(is_number(v) and 0 <= v < 1 for v in value)
        return None if fine else f"must be two numbers from 0 to below 1, such as [0.9, 0.999], but is {value!r}"
    if not is_number(value):
        return _no_number(value)
    low, high = RANGES.get(key, (-math.inf, math.inf))
    if low <= value <= high and not (key in BELOW_1 and value == 1):
        return None
    bounds = f"from 0 to below {high:g}" if key in BELOW_1 else f"from {low:g} to {high:g}"
    bounds = f"above 0 and at most {high:g}" if key == "lr" else bounds
    return f"must be {bounds}, but is {value!r}"


def check_schedule_values(training: TrainingSpec) -> Faults:
    """Parts of the training are fractions of it, not epochs."""
    named, epochs = training.lr_schedule, training.epochs
    if named.name not in LR_SCHEDULES:
        return
    for key, value in named.arguments.items():
        if said := _schedule_value(key, value, epochs):
            yield ("training", "lr_schedule", named.name, key), said


def _schedule_value(key: str, value: Any, epochs: int) -> str | None:
    if key == "at":
        if not isinstance(value, (list, tuple)) or not value or not all(is_number(v) for v in value):
            return f"must be a list of fractions of the training, such as [0.5, 0.75], but is {value!r}"
        if not all(0 < v < 1 for v in value):
            instead = f"; of {epochs} epochs these are {[round(v / epochs, 4) for v in value]}" if max(value) < epochs else ""
            return f"must be fractions of the training, above 0 and below 1, but is {list(value)!r}{instead}"
        return None if list(value) == sorted(set(value)) else f"must rise, but is {list(value)!r}"
    if key not in ("warmup", "final", "factor"):
        return None
    if not is_number(value):
        return _no_number(value)
    if key == "warmup" and not 0 <= value < 1:
        instead = f"; {value:g} of {epochs} epochs are {value / epochs:.4g}" if 1 <= value < epochs else ""
        return f"must be a fraction of the training, from 0 to below 1, but is {value!r}{instead}"
    low = "above 0" if key == "factor" else "at least 0"
    fine = 0 <= value <= 1 and (key != "factor" or value > 0)
    return None if fine else f"must be {low} and at most 1, times the rate, but is {value!r}"


def check_amount_value(spec: AdaptationSpec, at_the_end_of_a_range: bool) -> str | None:
    """Why nobody means an amount, or None; a range of fractions may begin at 0."""
    try:
        amount = Amount.read(spec.amount)
    except ValueError:
        return None  # said elsewhere
    if amount.of not in ("now", "seed"):
        return None
    value = amount.value
    if value == 0 and not at_the_end_of_a_range:
        return "must be above 0, but is 0, which changes nothing; leave the adaptation out, or write when: never"
    if isinstance(value, int):
        return None if value <= MOST_UNITS else f"must be at most {MOST_UNITS:,} units, but is {value}"
    most = 1.0 if spec.kind == "prune" and amount.of == "now" else MOST_TIMES
    if value > most:
        meant = f"; write {value / 100:g} for {value:g} %, {int(value)} for units" if 1 < value <= MOST_UNITS else ""
        return f"must be at most {most:g} as a fraction ({most * 100:g} %), but is {value:g}, that is {value * 100:g} %{meant}"
    return None


def check_removal(spec: AdaptationSpec) -> str | None:
    """Why units cannot go over so many steps, or None."""
    steps = spec.removal.arguments.get("steps", 1) if spec.removal.name == "shrink" else 1
    fine = is_number(steps) and steps == int(steps) and steps >= 1
    return None if fine else f"must be a whole number of at least 1, but is {steps!r}"
