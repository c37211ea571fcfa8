"""When a network changes: one file a family, one line a trigger in the table."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from scheduler.triggers.base import Progress, Trigger
from scheduler.triggers.plateau import Plateau
from scheduler.triggers.schedule import Never, Periodic

TRIGGERS: dict[str, type[Trigger]] = {
    "never": Never,
    "periodic": Periodic,
    "plateau": Plateau,
}
SPELLINGS = {"from": "start", "until": "end"}


def trigger_class(name: str) -> type[Trigger]:
    """The trigger called `name`, or the class that `package.module:attribute` names.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    if name in TRIGGERS:
        return TRIGGERS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"a trigger must be one of {sorted(TRIGGERS)} or package.module:attribute, but got {name!r}.")
    found = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, Trigger)):
        raise ValueError(f"{name!r} must be a subclass of scheduler.triggers.base.Trigger, but is {found!r}.")
    return found


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
        _check(name, key, value, fields[key].metadata.get("parameter", {}))
    return kind(**given)


def _check(trigger: str, key: str, value: Any, about: Mapping[str, Any]) -> None:
    low, high, choices = about.get("low"), about.get("high"), about.get("choices")
    if choices and value not in choices:
        raise ValueError(f"trigger {trigger}: {key} must be one of {list(choices)}, but got {value!r}.")
    if low is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"trigger {trigger}: {key} must be a number, but got {value!r}.")
    if value < low or (high is not None and value > high):
        most = "" if high is None else f" <= {high}"
        raise ValueError(f"trigger {trigger}: {low} <= {key}{most} must hold, but got {key}={value}.")


__all__ = ["SPELLINGS", "TRIGGERS", "Progress", "Trigger", "build_trigger", "trigger_class"]
