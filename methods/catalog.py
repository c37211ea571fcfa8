"""The tables of methods and selections, and how a name with arguments becomes one."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from methods.growth.deepen import Deepen
from methods.growth.gradmax import GradMax
from methods.growth.net2wider import Net2Wider
from methods.growth.random import Random
from methods.method import Method, Parameter
from methods.pruning.magnitude import Magnitude, MagnitudeWeights
from methods.pruning.remove_blocks import RemoveBlocks
from methods.pruning.slimming import Slimming
from methods.selection import All, BestGain, GlobalRanking, RoundRobin, Selection

GROWTH: dict[str, type[Method]] = {
    "random": Random,
    "net2wider": Net2Wider,
    "gradmax": GradMax,
    "deepen": Deepen,
}
PRUNING: dict[str, type[Method]] = {
    "magnitude": Magnitude,
    "magnitude_weights": MagnitudeWeights,
    "slimming": Slimming,
    "remove_blocks": RemoveBlocks,
}
SELECTIONS: dict[str, type[Selection]] = {
    "all": All,
    "round_robin": RoundRobin,
    "best_gain": BestGain,
    "global": GlobalRanking,
}
TABLES: dict[str, Mapping[str, type[Any]]] = {"grow": GROWTH, "prune": PRUNING, "selection": SELECTIONS}
BASES: dict[str, type[Any]] = {"grow": Method, "prune": Method, "selection": Selection}


def find(kind: str, name: str) -> type[Any]:
    """The class called `name` in the table of `kind` (`grow`, `prune` or `selection`), or `package.module:attribute`.

    Raises:
        ValueError: unknown name, or not a class of that kind; the message lists the known names.
    """
    table = TABLES[kind]
    if name in table:
        return table[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{kind} knows {sorted(table)} and package.module:attribute, but got {name!r}{hint}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name!r} must be importable, but {error}.") from error
    if not (isinstance(found, type) and issubclass(found, BASES[kind])) or getattr(found, "kind", kind) != kind:
        raise ValueError(f"{name!r} must be a {BASES[kind].__name__} of kind {kind}, but is {found!r}.")
    return found


def parameters(found: type[Any]) -> dict[str, tuple[Any, Parameter]]:
    """Default and range of each parameter of a method or selection."""
    return {f.name: (f.default, f.metadata.get("parameter", Parameter())) for f in dataclasses.fields(found)}


def build(kind: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """The method or selection with these arguments.

    Raises:
        ValueError: unknown name or argument, or a value outside its range; the message says what is known.
    """
    found = find(kind, name)
    known = parameters(found)
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(f"{name} takes {sorted(known) or 'no arguments'}, but got {unknown}.")
    for key, value in arguments.items():
        check_value(name, key, value, known[key][1])
    return found(**arguments)


def check_value(name: str, key: str, value: Any, about: Parameter) -> None:
    """Raise ValueError when a value is outside a parameter's range."""
    if about.choices and value not in about.choices:
        raise ValueError(f"{name}: {key} must be one of {list(about.choices)}, but got {value!r}.")
    if about.low is None and about.high is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name}: {key} must be a number, but got {value!r}.")
    if (about.low is not None and value < about.low) or (about.high is not None and value > about.high):
        raise ValueError(f"{name}: {about.low} <= {key} <= {about.high} must hold, but got {key}={value}.")
