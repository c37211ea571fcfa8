"""Whether our own networks and data sets are given arguments of the kinds that they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from coppice.methods.networks.catalog import NETWORKS, network_reference
from coppice.methods.record.architecture import import_factory
from coppice.orchestrator.config.models import Campaign, TaskSpec
from coppice.orchestrator.planning.problems import Faults, Place
from coppice.orchestrator.planning.values import is_number
from coppice.orchestrator.tasks.catalog import DATASETS
from coppice.references import resolve

LIMITS = {"limit_train": "int", "limit_eval": "int", "seed": "int"}
"""Arguments that every data set takes."""


def _is_whole(value: Any) -> bool:
    return is_number(value) and isinstance(value, int)


KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", _is_whole),
    "float": ("a number", is_number),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "str": ("text", lambda value: isinstance(value, str)),
    "Sequence[int]": ("a list of whole numbers", lambda v: isinstance(v, (list, tuple)) and all(_is_whole(n) for n in v)),
}


def check_arguments(spec: Campaign, task: TaskSpec) -> Faults:
    """Of the data set, the network, and the network that the best one is compared with; those of the user's are left alone."""
    if task.dataset in DATASETS:
        loader = resolve("dataset", task.dataset, DATASETS)
        yield from _check(("task", "dataset_args"), {**_annotations(loader), **LIMITS}, task.dataset_args)
    if task.network in NETWORKS:
        known = _annotations(import_factory(network_reference(task.network)))
        yield from _check(("task", "network_args"), known, task.network_args)
        yield from _check(("compare", "big"), known, spec.compare.big or {})


def _annotations(factory: Callable[..., Any]) -> dict[str, str]:
    return {p.name: str(p.annotation) for p in inspect.signature(factory).parameters.values()}


def _check(place: Place, known: Mapping[str, str], arguments: Mapping[str, Any]) -> Faults:
    for key, value in arguments.items():
        kind, _, optional = known.get(key, "").partition(" | ")
        if kind in KINDS and not (optional and value is None) and not KINDS[kind][1](value):
            hint = "; write true or false" if kind == "bool" else "; write it without quotes" if _quoted(value) else ""
            yield (*place, key), f"must be {KINDS[kind][0]}, but is {value!r}{hint}"


def _quoted(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(float(value) or True)
    except ValueError:
        return False
