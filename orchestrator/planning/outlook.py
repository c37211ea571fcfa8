"""What may be expected of a campaign before it runs: where its methods can act, when trials are judged, how large its grid is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

from coppice.methods.adaptation.reasons import first_few
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.orchestrator.campaign.decisions import trial_scheduler
from coppice.orchestrator.config.grid import grid
from coppice.orchestrator.config.models import AdaptationSpec, Campaign, TrialSpec
from coppice.orchestrator.config.space import Space, largest
from coppice.orchestrator.planning.branches import PARTS
from coppice.orchestrator.planning.checks import OUR_BODY
from coppice.orchestrator.planning.metrics import reported
from coppice.orchestrator.planning.preview import Preview
from coppice.orchestrator.planning.rehearsal import branches
from coppice.orchestrator.seeds import generator
from coppice.orchestrator.tasks.batches import statistics_batches
from coppice.orchestrator.trial.adaptation import TrialAdaptation, build_companions
from coppice.orchestrator.trial.adaptations import sizes
from coppice.orchestrator.trial.building import build_network, build_task
from coppice.scheduler.triggers import Trigger, build_trigger
from coppice.scheduler.triggers.base import Progress
from coppice.scheduler.triggers.schedule import Never

MOST_POINTS = 10_000
"""Points of a grid that are counted."""


@dataclass(frozen=True)
class Reach:
    """What an adaptation's method can do on a network before training.

    Attributes:
        adaptation: its place in the campaign file.
        kind: `grow` or `prune`.
        method: its name.
        network: name of the network.
        elements: how many it may change.
        reasons: why it may not change the others, the first few.
    """

    adaptation: int
    kind: str
    method: str
    network: str
    elements: int
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        count = f"{self.elements or 'no'} element{'' if self.elements == 1 else 's'}"
        what = f"adaptations.{self.adaptation}: {self.kind} by {self.method} can act on {count} of {self.network}"
        why = "; ".join(self.reasons) or "it has none of the kind that the method acts on"
        return what if self.elements else f"{what}: {why}"


def reaches(spec: Campaign) -> list[Reach]:
    """Of each method that the campaign names, on each of its networks (the first size of it), what it can act on."""
    found: dict[tuple[int, str, str, str], Reach] = {}
    networks: dict[str, tuple[Network, Context]] = {}
    for branch in branches(spec):
        trial, name = branch.spec, branch.spec.task.network
        for i, adaptation in enumerate(trial.adaptations):
            key = (i, adaptation.kind, adaptation.how.name, name)
            if key not in found:
                network, context = networks.setdefault(name, _look(trial)) if name not in networks else networks[name]
                found[key] = _reach(i, adaptation, name, network, context)
    return [found[key] for key in sorted(found)]


def _look(trial: TrialSpec) -> tuple[Network, Context]:
    dataset, loss = build_task(trial)
    network = build_network(trial, dataset)
    batches = partial(statistics_batches, dataset, trial.training.batch_size, trial.seed, 1)
    return network, Context(network, batches, loss, generator(trial.seed, "adapt", 1))


def _reach(index: int, spec: AdaptationSpec, name: str, network: Network, context: Context) -> Reach:
    adaptation = TrialAdaptation.build(index, spec)
    build_companions([adaptation], network)
    permissible, skipped = adaptation.candidates(context, sizes(network))
    if permissible and (full := adaptation.limited(context)):
        permissible, skipped = [], [full]
    return Reach(index, spec.kind, spec.how.name, name, len(permissible), tuple(first_few(skipped, 2)))


def first_event(trigger: Trigger, epochs: int, kind: str = "grow") -> int | None:
    """The epoch after which a trigger may act for the first time: where no metric improves, and whatever it measures lets it.

    0 is before the first epoch; None is never.
    """
    if trigger.initially:
        return 0
    if isinstance(trigger, Never):
        return None
    history = [{**dict.fromkeys(reported(), 1.0), "lr": 1.0, "epoch": float(e), "compute": float(e)} for e in range(1, epochs)]
    for epoch in range(1, epochs):
        progress = Progress(epoch, epochs, tuple(history[:epoch]), kind=kind)
        if trigger.awake(progress) and (trigger.wants or trigger.decides(progress)):
            return epoch
    return None


def judged(spec: Campaign, first_rung: tuple[str, float] | None, sampled: Sequence[Preview]) -> str | None:
    """Where the first rung stands against the first change of a network; None where no trial is judged."""
    if first_rung is None:
        return None
    clock, amount = first_rung
    an_epoch = max((p.compute / p.epochs for p in sampled), default=1.0) if clock == "compute" else 1.0
    rung = ceil(amount / an_epoch)
    after = f"{amount:.3g} FLOPs, which is epoch {rung} or later" if clock == "compute" else f"epoch {rung}"
    said = f"{spec.search.trial_scheduler.name} judges trials for the first time after {after}"
    longest = largest(spec.training, "epochs")
    if clock == "epoch" and longest is not None and rung >= longest:
        return f"{said}, but no trial has more than {longest:g}: none ends early. Give a grace of less than {longest:g} epochs."
    first = max((e for e in _first_events(spec) if e), default=0)
    if not first:
        return f"{said}."
    if rung > first:
        return f"{said}; by then every network may have changed (after epoch {first})."
    return (
        f"{said}, but the network of some trials changes for the first time after epoch {first}: they are judged before they "
        f"have grown or shrunk. Give a grace of more than {first} epochs."
    )


def _first_events(spec: Campaign) -> Iterator[int]:
    """Of each trial of the campaign the first change of its network, where there is one."""
    for branch in branches(spec):
        acts = [
            first_event(build_trigger(a.when.name, a.when.arguments), branch.spec.training.epochs, kind=a.kind)
            for a in branch.spec.adaptations
        ]
        if known := [e for e in acts if e is not None]:
            yield min(known)


def grid_points(spec: Campaign) -> int | None:
    """How many points the campaign's grid has, counted up to `MOST_POINTS`; None where it searches otherwise."""
    if spec.search.sampler.name != "grid":
        return None
    space = Space({name: getattr(spec, name) for name in PARTS})
    return sum(1 for _ in itertools.islice(grid(space), MOST_POINTS))


def _on_grid(spec: Campaign, points: int) -> str:
    said = f"The grid has {points:,}{' points or more' if points == MOST_POINTS else ' points' if points != 1 else ' point'}"
    trials = spec.search.trials
    if trials < points:
        return f"{said}, of which {trials:,} are tried: search.trials says so."
    return f"{said}, and the search ends with the last of them." if trials > points else f"{said}; all are tried."


@dataclass(frozen=True)
class Outlook:
    """What may be expected of a campaign.

    Attributes:
        reaches: what its methods can act on.
        grid_points: how many points its grid has; None where it has none.
        notes: sentences about the grid and about when trials are judged.
    """

    reaches: tuple[Reach, ...]
    grid_points: int | None
    notes: tuple[str, ...]


def outlook(spec: Campaign, sampled: Sequence[Preview]) -> Outlook:
    """What may be expected of a campaign that was checked.

    Args:
        spec: the campaign.
        sampled: trials that the sampler would try.
    """
    points, notes = grid_points(spec), []
    if points is not None:
        notes.append(_on_grid(spec, points))
    if said := judged(spec, trial_scheduler(spec).first_rung, sampled):
        notes.append(said)
    found = reaches(spec) if spec.body == OUR_BODY else []
    return Outlook(tuple(found), points, tuple(notes))
