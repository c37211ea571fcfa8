"""When a network changes: one file a family, one line a trigger in the table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from coppice.references import resolve
from coppice.scheduler.triggers.base import Progress, Trigger
from coppice.scheduler.triggers.plateau import Plateau
from coppice.scheduler.triggers.resources import Compute, Overfitting, Target
from coppice.scheduler.triggers.schedule import Initial, Never, Periodic
from coppice.scheduler.triggers.signals import Advised, Rank, Score, SplittingScore
from coppice.scheduler.triggers.sparsity import Cosine, Cubic

TRIGGERS: dict[str, type[Trigger]] = {
    "never": Never,
    "initial": Initial,
    "periodic": Periodic,
    "plateau": Plateau,
    "cubic": Cubic,
    "cosine": Cosine,
    "rank": Rank,
    "score": Score,
    "splitting": SplittingScore,
    "overfitting": Overfitting,
    "compute": Compute,
    "target": Target,
    "learned": Advised,
}
SPELLINGS = {"from": "start", "until": "end"}


def trigger_class(name: str) -> type[Trigger]:
    """The trigger called `name`, or the class that `package.module:attribute` names.

    Raises:
        ValueError: unknown name (the message lists the known ones), or a reference to something else.
    """
    cls: type[Trigger] = resolve("trigger", name, TRIGGERS, Trigger)
    return cls


def build_trigger(name: str, arguments: Mapping[str, Any]) -> Trigger:
    """The trigger with these arguments (`from` and `until` stand for `start` and `end`).

    Raises:
        ValueError: unknown name or argument, or a value outside its range; the message says what is known.
    """
    kind = trigger_class(name)
    given = {SPELLINGS.get(k, k): v for k, v in arguments.items()}
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise ValueError(f"trigger {name} takes {sorted(fields)}, but got {unknown}.")
    for key, value in given.items():
        annotation = fields[key].type
        _check_type(name, key, value, annotation if isinstance(annotation, str) else annotation.__name__)
        _check_range(name, key, value, fields[key].metadata.get("parameter", {}))
    trigger = kind(**given)
    same_unit = (trigger.start < 1) == (trigger.end <= 1)
    if same_unit and trigger.start > trigger.end:
        raise ValueError(f"trigger {name}: from <= until must hold, but got from={trigger.start}, until={trigger.end}.")
    return trigger


def _check_type(trigger: str, key: str, value: Any, annotation: str) -> None:
    """Whether a value is what the field's annotation says; other annotations than those of our own triggers are left alone."""
    kind, _, optional = annotation.partition(" | ")
    if value is None and optional == "None":
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    fine = {"str": isinstance(value, str), "float": number, "int": number and int(value) == value}.get(kind, True)
    if not fine:
        expected = {"str": "a name", "float": "a number", "int": "a number, a whole one"}[kind]
        raise ValueError(f"trigger {trigger}: {key} must be {expected}, but got {value!r}.")


def _check_range(trigger: str, key: str, value: Any, about: Mapping[str, Any]) -> None:
    low, high, choices = about.get("low"), about.get("high"), about.get("choices")
    if choices and value not in choices:
        raise ValueError(f"trigger {trigger}: {key} must be one of {list(choices)}, but got {value!r}.")
    if low is not None and (value < low or (high is not None and value > high)):
        most = "" if high is None else f" <= {high}"
        raise ValueError(f"trigger {trigger}: {low} <= {key}{most} must hold, but got {key}={value}.")


__all__ = ["SPELLINGS", "TRIGGERS", "Progress", "Trigger", "build_trigger", "trigger_class"]
