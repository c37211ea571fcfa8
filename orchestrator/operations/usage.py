"""What a campaign has used and what it got for it: from its journal, the events of its trials and Slurm's accounts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coppice.orchestrator.config.models import Campaign, ResourcesSpec
from coppice.orchestrator.folder.events import FINAL, read_events, state_of
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.queue import attempts_of
from coppice.slurm.accounts import Node, Run, billed_hours, runs, whole_nodes
from coppice.slurm.client import Client, SlurmError
from coppice.slurm.site import Site

EARLY_S = 2.0
"""Clocks of nodes and of the controller may differ by so much."""


@dataclass(frozen=True)
class Usage:
    """What one trial (or one job that serves several trials) has used.

    Attributes:
        name: of the trial, or the journal's key of the job.
        state: of the trial; of a job's newest run where it is no trial's.
        runs: those that have started, oldest first.
        core_hours: as the site counts them.
        gpu_hours: likewise.
        waited_s: time in the queue, all runs together.
        useful_s: time in epochs that count: those that no later run did again.
        lost_s: time of ended runs in which no epoch that counts was done.
        epochs: that count.
        cpu_share: used part of the processors' time; None where the site does not measure.
        gpu_share: how busy the GPUs were; None where the site does not measure.
        useful_core_s: `useful_s` times the cores that worked.
    """

    name: str
    state: str
    runs: tuple[Run, ...]
    core_hours: float
    gpu_hours: float
    waited_s: float
    useful_s: float
    lost_s: float
    epochs: int
    cpu_share: float | None
    gpu_share: float | None
    useful_core_s: float = 0.0

    @property
    def ran_s(self) -> float:
        """For how long its runs have run, together."""
        return sum(r.elapsed_s for r in self.runs)

    @property
    def epoch_s(self) -> float | None:
        """Mean duration of an epoch that counts, seconds; None where there is none, or its body does not say."""
        return self.useful_s / self.epochs if self.useful_s else None

    @property
    def useful_share(self) -> float | None:
        """Part of the cores' time that was spent in epochs that count; None where its body does not say."""
        had = sum(r.elapsed_s * r.cpus for r in self.runs)
        return min(1.0, self.useful_core_s / had) if had and self.useful_s else None


@dataclass(frozen=True)
class CampaignUsage:
    """What a campaign has used.

    Attributes:
        trials: by trial.
        others: jobs that are no trial's: nodes of a pool.
        notes: what is not known, and why.
    """

    trials: tuple[Usage, ...]
    others: tuple[Usage, ...]
    notes: tuple[str, ...]

    @property
    def billed(self) -> tuple[Usage, ...]:
        """What the account is charged for: a pool's nodes, where there are any, since its trials are inside of them."""
        return self.others or self.trials


def usage_of(folder: CampaignFolder, spec: Campaign, client: Client, clock: float | None = None) -> CampaignUsage:
    """What the campaign has used: one question to the accounts, and one about nodes where whole nodes are billed.

    Args:
        folder: of the campaign.
        spec: the campaign.
        client: Slurm's commands; not called where the campaign has no jobs.
        clock: seconds since the epoch; None for now.
    """
    notes: list[str] = []
    jobs = {key: list(dict.fromkeys(a.job for a in held if a.job)) for key, held in attempts_of(folder).items()}
    known = _accounts(client, jobs, notes)
    events = {t.name: read_events(t.events) for t in folder.trials()}
    held = {key: [r for job in ids for r in known.get(job, [])] for key, ids in jobs.items()}
    unknown = [name for name, written in events.items() if not held.get(name)]
    for name in unknown:
        held[name] = runs_from_events(events[name], spec.resources, clock or time.time(), folder.running)
    if missing := [name for name in unknown if known and jobs.get(name) and held[name]]:
        notes.append(
            f"Slurm's accounts do not know the jobs of {len(missing)} trials that have run (yet): {', '.join(missing[:6])}"
        )
    hours = _hours(client, spec, held, notes) if known else billed_hours(Site.model_validate(PLAIN), held, {})
    trials = tuple(_usage(name, state_of(events[name]), events[name], held[name], hours[name]) for name in events)
    others = tuple(
        _usage(key, held[key][-1].state.lower() if held[key] else "", [], held[key], hours[key])
        for key in jobs
        if key not in events
    )
    return CampaignUsage(trials, others, tuple(notes))


PLAIN: Mapping[str, Any] = {"name": "plain", "queues": [{"max_min": 1}], "billing": "cores"}
"""A site that counts cores."""


def _accounts(client: Client, jobs: Mapping[str, Sequence[str]], notes: list[str]) -> dict[str, list[Run]]:
    ids = [job for held in jobs.values() for job in held]
    if not ids:
        return {}
    try:
        used = runs(client, ids)
    except SlurmError as error:
        notes.append(f"Slurm's accounts cannot be read, so hours are those between a trial's first and last word: {error}")
        return {}
    return used


def _hours(
    client: Client, spec: Campaign, held: Mapping[str, Sequence[Run]], notes: list[str]
) -> dict[str, tuple[float, float]]:
    site = spec.placement.open_site()
    nodes: dict[str, Node] = {}
    if site.billing == "nodes":
        try:
            nodes = whole_nodes(client)
        except SlurmError as error:
            notes.append(
                f"sinfo does not answer, so hours are those of the cores and GPUs asked for, not of whole nodes: {error}"
            )
    return billed_hours(site, held, nodes)


def runs_from_events(
    events: Sequence[Mapping[str, Any]], resources: ResourcesSpec, clock: float, running: Any = lambda: False
) -> list[Run]:
    """Runs of a trial as far as its events show them, with what the campaign file gives a trial.

    Args:
        events: of the trial.
        resources: of a trial.
        clock: now, seconds since the epoch: until when a trial that is running has run.
        running: whether the campaign runs; asked only where it matters.
    """
    cpus = max(resources.cpus, resources.gpus * resources.cpus_per_gpu) * resources.nodes
    ended: list[Run] = []
    for event in events:
        if "time" not in event:
            continue
        at = float(event["time"])
        if event["type"] == "status" and event["status"] in ("started", "resumed"):
            ended.append(Run("", "ENDED", "", None, at, at, 0.0, (), cpus, resources.gpus * resources.nodes))
        elif ended and event.get("status") != "interrupted":  # that may be said long afterwards, by the next driver
            ended[-1] = _until(ended[-1], at)
    if ended and state_of(events) not in (*FINAL, "interrupted", "waiting") and running():
        ended[-1] = _until(ended[-1], clock)
    return ended


def _until(run: Run, at: float) -> Run:
    start = run.started or at
    return Run("", run.state, "", None, start, at, max(0.0, at - start), (), run.cpus, run.gpus)


def _usage(name: str, state: str, events: Sequence[Mapping[str, Any]], held: Sequence[Run], hours: tuple[float, float]) -> Usage:
    epochs = [e for e in events if e["type"] == "metrics"]
    times = [float(e["time"]) for e in epochs]
    cpu_s = sum(r.cpu_s for r in held)
    had = sum(r.elapsed_s * r.cpus for r in held)
    measured = [r for r in held if r.gpu_percent is not None and r.elapsed_s]
    gpu = sum((r.gpu_percent or 0.0) * r.elapsed_s for r in measured) / sum(r.elapsed_s for r in measured) if measured else None
    ran = sum(r.elapsed_s for r in held)
    useful = sum(float(e.get("seconds", 0.0)) for e in epochs)
    return Usage(
        name, state, tuple(r for r in held if r.started is not None), *hours,
        sum(max(0.0, r.started - r.submitted) for r in held if r.started and r.submitted),
        useful,
        sum(r.elapsed_s for r in held if events and r.ended is not None and not _useful(r, times)),
        len(epochs),
        cpu_s / had if cpu_s and had else None,
        None if gpu is None else gpu / 100,
        useful * had / ran if ran else 0.0,
    )  # fmt: skip


def _useful(run: Run, times: Sequence[float]) -> bool:
    """Whether an epoch that counts was done in it."""
    start, end = run.started or 0.0, (run.ended or 0.0)
    return any(start - EARLY_S <= t <= end + EARLY_S for t in times)
