"""How a campaign stands whose trials are Slurm jobs: what its folder, the queue and the accounts say, put together."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from coppice.orchestrator.folder.events import FINAL
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.operations.queue import Queue, TrialJobs, queue_of
from coppice.orchestrator.operations.status import StatusBoard, TrialStatus
from coppice.orchestrator.operations.usage import CampaignUsage, Usage, usage_of
from coppice.slurm.client import Client
from coppice.slurm.reasons import explained
from coppice.slurm.site import Site

SOON_DAYS = 7
RUNS = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING")
WAITS = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "REQUEUE_FED")


@dataclass(frozen=True)
class TrialStanding:
    """How one trial stands.

    Attributes:
        trial: as its folder tells it; `state` says what its job does where the trial has not ended.
        jobs: its jobs; None where it has had none.
        usage: what it has used.
        why: why it waits, failed or was stopped, in words; empty otherwise.
    """

    trial: TrialStatus
    jobs: TrialJobs | None
    usage: Usage | None
    why: str


@dataclass(frozen=True)
class Overview:
    """How a campaign stands.

    Attributes:
        trials: by name, those of the search first.
        queue: the campaign's jobs.
        usage: what the campaign has used.
        driver: who runs the campaign, in words.
        notes: what is not known, and why.
    """

    trials: tuple[TrialStanding, ...]
    queue: Queue
    usage: CampaignUsage
    driver: str
    notes: tuple[str, ...]


def overview(folder: CampaignFolder, client: Client) -> Overview:
    """How the campaign in a folder stands, whether its driver runs or not and whether Slurm answers or not.

    Raises:
        FileNotFoundError: there is no campaign in the folder.
        ValueError: a file is damaged; the message names it.
    """
    statuses = StatusBoard(folder.path).read(running=True)
    queue = queue_of(folder, client)
    spec = load_spec(folder)
    usage = usage_of(folder, spec, client)
    driven = folder.running() or any(j.state in RUNS for j in queue.drivers)
    used, jobs = {u.name: u for u in usage.trials}, {j.trial: j for j in queue.trials}
    standings = [_standing(s, jobs.get(s.id), used.get(s.id), queue, driven) for s in statuses]
    order = sorted(standings, key=lambda s: (s.trial.label is not None, s.trial.id))
    problem = (f"Slurm cannot be asked, so states are those of the folder: {queue.problem}",) if queue.problem else ()
    notes = (*problem, *usage.notes, *_expiry(folder, spec.placement.open_site(), time.time()))
    return Overview(tuple(order), queue, usage, _driver(folder, queue, driven, statuses), notes)


def _expiry(folder: CampaignFolder, site: Site, clock: float) -> list[str]:
    """A word when files that trials cannot do without are about to expire; `coppice doctor` looks at all files."""
    days = site.scratch.days
    if days is None:
        return []
    kept = (folder.lock, *(t.params for t in folder.trials()))
    oldest = max(((clock - p.stat().st_mtime) / 86400 for p in kept if p.exists()), default=0.0)
    if oldest < days - SOON_DAYS:
        return []
    return [
        f"Files at {site.name} expire after {days} days, and the oldest of this campaign are {oldest:.0f} days old: "
        f"coppice doctor {shlex.quote(str(folder.path))}"
    ]


def _standing(status: TrialStatus, jobs: TrialJobs | None, usage: Usage | None, queue: Queue, driven: bool) -> TrialStanding:
    if jobs is None or not jobs.job:
        jobs = None
    state, why = status.state, status.reason
    if status.state not in FINAL:
        state, why = _under_way(status, jobs, driven, bool(queue.problem))
    return TrialStanding(TrialStatus(**{**vars(status), "state": state}), jobs, usage, why)


def _under_way(status: TrialStatus, jobs: TrialJobs | None, driven: bool, silent: bool) -> tuple[str, str]:
    """State of a trial that has not ended, and why it waits."""
    left = "interrupted" if status.state == "running" else status.state
    if jobs is None or silent:  # no job of its own: it lives and dies with the driver, or nobody can say
        return (status.state, "") if driven or silent else (left, "no driver runs")
    if jobs.state in RUNS:
        return ("running" if status.epoch or status.state == "running" else "starting"), ""
    if jobs.state in WAITS:
        expected = f"; expected to start {_moment(jobs.start)}" if jobs.start else ""
        held = "held" if "Held" in jobs.reason or "HOLD" in jobs.state else "queued"
        return held, explained(jobs.reason or "None") + expected
    if jobs.state == "SUSPENDED":
        return "suspended", "Slurm has stopped it for the sake of other jobs"
    ended = f"job {jobs.job} is over ({jobs.state}{': ' + jobs.reason if jobs.reason else ''})"
    return ("between jobs" if driven else left), ended + ("; its driver looks after it" if driven else "; no driver runs")


def _moment(text: str) -> str:
    """`2026-11-21T14:05:00` as `Sat 21 Nov, 14:05`."""
    try:
        return time.strftime("%a %d %b, %H:%M", time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return text


def _driver(folder: CampaignFolder, queue: Queue, driven: bool, statuses: Sequence[TrialStatus]) -> str:
    jobs = [f"job {j.id} {j.state.lower()}{' on ' + j.nodes if j.nodes else ''}" for j in queue.drivers if j.state in RUNS]
    waiting = [f"job {j.id} waits ({explained(j.reason)})" for j in queue.drivers if j.state not in RUNS]
    if driven:
        return "; ".join(["The driver runs" + (f": {jobs[0]}" if jobs else ""), *waiting]) + "."
    if waiting:
        return f"The driver does not run yet: {'; '.join(waiting)}."
    if statuses and all(s.state in FINAL for s in statuses):
        return "No driver runs; every trial so far has ended."
    return f"No driver runs. Go on with: coppice resume {shlex.quote(str(folder.path))}"
