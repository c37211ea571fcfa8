"""What could run but makes no sense, and is refused before a campaign starts. One that has begun with it goes on as it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.config.samplers import check_sampler
from coppice.orchestrator.config.space import Space
from coppice.orchestrator.planning.arguments import check_arguments
from coppice.orchestrator.planning.branches import PARTS, origin
from coppice.orchestrator.planning.metrics import check_modes
from coppice.orchestrator.planning.problems import Fault, Faults, Place, fault_of
from coppice.orchestrator.planning.timing import why_it_never_acts
from coppice.orchestrator.planning.values import check_amount_value, check_optimizer_values, check_removal, check_schedule_values

LONGEST_NAME = 100
WORDS_OF_OTHER_KINDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
RANGES = ("uniform", "loguniform")


def check_sense(spec: Campaign) -> Faults:
    """What makes no sense in a campaign whose parts are fine by themselves."""
    yield from check_modes(spec.search)
    yield from fault_of(("search", "sampler"), lambda: check_sampler(spec.search.sampler.name, spec.search.sampler.arguments))
    yield from _check_place(spec)
    for place, seed in ((("seed",), spec.seed), (("search", "seed"), spec.search.seed)):
        if not 0 <= seed < 2**63:
            yield place, f"must be from 0 to {2**63 - 1}, but is {seed}"
    yield from _check_trials(spec)


def _check_trials(spec: Campaign) -> Faults:
    """Of the trials that the campaign may try. A trigger must be able to act in one of them, not in all."""
    seen: set[Fault] = set()
    idle: dict[Place, str] = {}
    able: set[Place] = set()
    for resolved, places in Space({name: getattr(spec, name) for name in PARTS}).variants():
        try:
            trial = TrialSpec.model_validate(resolved)
        except ValidationError:  # said elsewhere
            continue
        found = [*_check_trial(trial, places), *check_arguments(spec, trial.task)]
        seen |= {(origin(place, places), message) for place, message in found}
        for i, adaptation in enumerate(trial.adaptations):
            place = origin(("adaptations", i, adaptation.kind, "when"), places)
            said = why_it_never_acts(adaptation, trial.training.epochs)
            able |= set() if said else {place}
            idle |= {place: said} if said else {}
    yield from sorted(seen, key=str)
    yield from ((place, said) for place, said in idle.items() if place not in able)


def _check_place(spec: Campaign) -> Faults:
    """The campaign's name and where its folder is made."""
    if len(spec.name) > LONGEST_NAME:
        yield ("name",), f"must have at most {LONGEST_NAME} characters, but has {len(spec.name)}; choose a shorter one"
    if spec.name.lower() in WORDS_OF_OTHER_KINDS:
        yield ("name",), f"must be a name, but {spec.name!r} reads as a truth value; choose another one"
    above: Path | None = next((p for p in (spec.root, *spec.root.parents) if os.path.exists(p)), None)
    if above is not None and not above.is_dir():
        yield ("root",), f"must be a folder, or where one can be made, but {str(above)!r} is a file"
    elif above is not None and not os.access(above, os.W_OK | os.X_OK):
        yield ("root",), f"must be where you may make folders, but you may not write in {str(above)!r}; choose another one"


def _check_trial(trial: TrialSpec, places: Mapping[Place, Place]) -> Faults:
    yield from check_optimizer_values(trial.training.optimizer)
    yield from check_schedule_values(trial.training)
    for i, spec in enumerate(trial.adaptations):
        here: Place = ("adaptations", i, spec.kind)
        ranged = any(p[: len(here) + 1] == (*here, "amount") and set(places[p]) & set(RANGES) for p in places)
        if said := check_amount_value(spec, ranged):
            yield (*here, "amount"), said
        if said := check_removal(spec):
            yield (*here, "removal", "shrink", "steps"), said
        for name, given in {"minimum": spec.minimum != 1, "removal": spec.removal.name != "immediate"}.items():
            if given and spec.kind == "grow":
                yield (*here, name), "is for `prune`, where units go; under `grow` it does nothing: delete it"
