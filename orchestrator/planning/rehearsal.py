"""Rehearses a campaign: what its file names is built and used once, on the CPU, with a few samples of the real data.

The names and arguments of a file are looked at first (`checks`); what only shows when a sampler has seen results, or when a
batch goes through a network, shows here. Trials with a body of the campaign's own are left to that body.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError

from coppice.orchestrator.campaign.sampler import Sampler
from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.config.space import Space
from coppice.orchestrator.planning.branches import PARTS, origin
from coppice.orchestrator.planning.checks import OUR_BODY
from coppice.orchestrator.planning.problems import Fault, Faults, Place, fault_of
from coppice.orchestrator.planning.rehearsed_trial import RehearsedTrial, key_of
from coppice.orchestrator.trial.building import forget_datasets

MOST_RESULTS = 24
"""Trials with made-up results that the sampler is told at most: more than its start-up."""
SAMPLED = 5
"""Trials that are sampled beside those in which each option and each end of a range occurs."""
MOST_NETWORKS = 48
"""Networks that are built at most, the first ones."""


@dataclass(frozen=True)
class Branch:
    """A trial that the campaign may try.

    Attributes:
        spec: the trial, on the CPU.
        places: for paths in the trial, those in the campaign file; empty where they are the same.
    """

    spec: TrialSpec
    places: dict[Place, Place]

    def origin(self, fault: Fault) -> Fault:
        """A fault of the trial as one of the campaign file."""
        place, message = fault
        return (origin(place, self.places) if self.places else place), message


def rehearse(spec: Campaign, begun: bool = False) -> Faults:
    """What goes wrong when the campaign's parts are used; the campaign is one in which `checks` finds nothing wrong.

    Args:
        spec: the campaign.
        begun: whether it has begun: then it goes on where some of its trials can.
    """
    faults = list(_try_sampler(spec))
    yield from faults
    if faults or spec.body != OUR_BODY:
        return
    try:
        with torch.random.fork_rng(devices=[]):
            yield from _try_trials(spec, begun)
    finally:
        forget_datasets()


def _try_sampler(spec: Campaign) -> Faults:
    """Ask for trials and tell made-up results, past the start-up of samplers that learn."""

    def search() -> None:
        sampler, names = Sampler(spec), [spec.search.metric, *spec.search.also]
        for number in range(min(spec.search.trials, MOST_RESULTS)):
            if sampler.ask(number) is None:
                break
            sampler.tell(number, "finished", [{"epoch": 1.0, **dict.fromkeys(names, float(number % 7))}])

    return fault_of(("search", "sampler"), search, f"{spec.search.sampler.name}: ")


def branches(spec: Campaign) -> Iterator[Branch]:
    """Trials in which every option of every choice and both ends of every range occur, then a few that the sampler draws.

    Raises:
        ValueError: sampled values that do not fit together.
    """
    for tree, places in Space({name: getattr(spec, name) for name in PARTS}).variants():
        yield Branch(_trial(spec, tree, 0), places)
    sampler = Sampler(spec)
    for number in range(min(spec.search.trials, SAMPLED)):
        sample = sampler.ask(number)
        if sample is None:
            return
        yield Branch(_trial(spec, sample.tree, number), {})


def _trial(spec: Campaign, tree: dict[str, Any], number: int) -> TrialSpec:
    try:
        return on_cpu(TrialSpec.model_validate({**tree, "seed": spec.seed + number}))
    except ValidationError as error:
        raise ValueError(f"the sampled values do not fit together: {error}") from None


def on_cpu(trial: TrialSpec) -> TrialSpec:
    """The same trial for a look at it: on the CPU, which every machine has, and not compiled."""
    return trial.model_copy(update={"training": trial.training.model_copy(update={"device": "cpu", "compile": False})})


def _try_trials(spec: Campaign, begun: bool) -> Faults:
    """Build the different networks, and let a batch go through the smallest and the largest of each kind."""
    different: dict[str, Branch] = {}
    faults = list(fault_of((), lambda: [different.setdefault(key_of(b.spec), b) for b in branches(spec)]))
    kinds: dict[str, list[tuple[Branch, RehearsedTrial]]] = {}
    for branch in list(different.values())[:MOST_NETWORKS]:
        trial = RehearsedTrial(branch.spec, spec, begun)
        wrong = [branch.origin(f) for f in trial.build()]
        faults += wrong
        if not wrong:
            kinds.setdefault(trial.kind, []).append((branch, trial))
    some_run = False
    for trials in kinds.values():
        smallest, largest = (choose(trials, key=lambda entry: entry[1].parameters) for choose in (min, max))
        for branch, trial in (smallest, largest) if smallest is not largest else (smallest,):
            wrong = [branch.origin(f) for f in trial.train()]
            faults += wrong
            some_run |= not wrong
    yield from () if begun and some_run else faults
