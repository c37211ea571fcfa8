"""Checks every branch of a campaign's search space: each option of each choice and both ends of each range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from coppice.orchestrator.config.models import AdaptationSpec, TaskSpec, TrainingSpec
from coppice.orchestrator.config.space import DISTRIBUTIONS, Space, distribution, problem_of
from coppice.orchestrator.planning.checks import check_adaptation, check_task, check_training
from coppice.orchestrator.planning.problems import Faults, Place
from coppice.orchestrator.planning.schema import validate

PARTS = ("task", "training", "adaptations")
"""Parts of a campaign file that may hold distributions."""


def check_distributions(tree: Any, place: Place = ()) -> Faults:
    """What is wrong with the distributions in a tree at `place`."""
    kind = distribution(tree)
    if kind is not None:
        message = problem_of(kind, tree[kind])
        if message is not None:
            yield (*place, kind), message
    elif isinstance(tree, dict):
        for name in (d for d in DISTRIBUTIONS if isinstance(tree.get(d), list)):
            others = sorted(map(str, set(tree) - {name}))
            yield (*place, name), f"a distribution must stand alone, but {name} stands beside {', '.join(others)}; delete those"
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield from check_distributions(value, (*place, key))


def check_branches(tree: dict[str, Any]) -> Faults:
    """What is wrong with task, training and adaptations of the trials that a campaign's tree may give."""
    for resolved, places in Space({name: tree[name] for name in PARTS if name in tree}).variants():
        for place, message in _check_resolved(resolved):
            yield origin(place, places), message


def _check_resolved(resolved: dict[str, Any]) -> Faults:
    """Of one tree without distributions."""
    yield from _check_part(("task",), resolved.get("task"), TaskSpec, check_task)
    yield from _check_part(("training",), resolved.get("training"), TrainingSpec, check_training)
    adaptations = resolved.get("adaptations", [])
    if not isinstance(adaptations, list):
        yield ("adaptations",), f"must be a list of grow: and prune:, but is {adaptations!r}"
        return
    for i, entry in enumerate(adaptations):
        kind = next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else None
        if kind not in ("grow", "prune"):
            yield ("adaptations", i), f"must be grow: {{...}} or prune: {{...}}, but is {entry!r}"
            continue
        content = {"kind": kind, **entry[kind]} if isinstance(entry[kind], dict) else entry[kind]
        yield from _check_part(("adaptations", i, kind), content, AdaptationSpec, check_adaptation)


def _check_part(place: Place, tree: Any, model: type[BaseModel], check: Callable[[Any], Faults]) -> Faults:
    """Of the tree at `place`: by its model, then by what a model cannot say."""
    faults, spec = validate(model, tree)
    yield from (((*place, *rest), message) for rest, message in faults)
    if spec is not None:
        yield from (((*place, *rest), message) for rest, message in check(spec))


def origin(place: Place, places: dict[Place, Place]) -> Place:
    """Where something of a resolved tree stands in the campaign file."""
    rest: Place = ()
    while place not in places:
        place, rest = place[:-1], (place[-1], *rest)
    return (*places[place], *rest)
