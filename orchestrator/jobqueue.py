"""The jobs of a campaign as anyone with its folder sees them, from any login node, whether its driver runs or not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.status import FINAL, state_of
from orchestrator.store import CampaignFolder, read_events
from slurm.client import Client, Job
from slurm.journal import Journal

CANCELLED = "cancelled"
"""A file in a trial's folder: its job was cancelled for good, by its user."""


@dataclass(frozen=True)
class TrialJobs:
    """The jobs of one trial.

    Attributes:
        trial: its id.
        job: Slurm's id of the newest; empty where none was handed in.
        state: as Slurm says; `gone` where the controller does not know the job any more.
        reason: why it waits, or how it ended.
        nodes: where it runs or ran.
        attempts: how many jobs it has had.
    """

    trial: str
    job: str
    state: str
    reason: str
    nodes: str
    attempts: int


def jobs_of(folder: CampaignFolder, client: Client) -> list[TrialJobs]:
    """The jobs of all trials; one question to Slurm.

    Raises:
        SlurmError: Slurm is not there, or does not answer.
    """
    attempts = Journal(folder.jobs / "journal.jsonl").attempts()
    live = client.live() if attempts else {}
    found = []
    for trial in folder.trials():
        own = [a for a in attempts.get(trial.name, []) if a.job]
        newest = own[-1].job if own else ""
        job = live.get(newest, Job(newest, "", "gone" if newest else ""))
        found.append(TrialJobs(trial.name, newest, job.state, job.reason, job.nodes, len({a.job for a in own})))
    return found


def chosen(folder: CampaignFolder, trials: Sequence[str]) -> list[str]:
    """The named trials, or all.

    Raises:
        ValueError: there is no trial of some name.
    """
    known = [t.name for t in folder.trials()]
    unknown = sorted(set(trials) - set(known))
    if unknown:
        raise ValueError(f"TRIAL must be a trial in {folder.path}, but {', '.join(unknown)} is none; see coppice status.")
    return list(trials) or known


def cancel(folder: CampaignFolder, client: Client, trials: Sequence[str]) -> list[str]:
    """Cancel trials for good; returns those that had not ended. Without names the driver's jobs are cancelled first."""
    if not trials:
        client.cancel(j.id for j in client.live().values() if j.name.startswith("coppice-driver-") and _ours(folder, j))
    under_way = [t for t in chosen(folder, trials) if state_of(read_events(folder.trial(t).events)) not in FINAL]
    for name in under_way:
        (folder.trial(name).path / CANCELLED).touch()
    live = [j for j in jobs_of(folder, client) if j.state in ("PENDING", "RUNNING", "SUSPENDED")]
    client.cancel(j.job for j in live if j.trial in under_way)
    return under_way


def _ours(folder: CampaignFolder, job: Job) -> bool:
    return job.name.endswith(f"-{folder.identity()}")


def hold(folder: CampaignFolder, client: Client, trials: Sequence[str], release: bool) -> list[str]:
    """Keep waiting jobs from starting, or let them; returns the trials."""
    names = set(chosen(folder, trials))
    waiting = [j for j in jobs_of(folder, client) if j.trial in names and j.state == "PENDING"]
    if waiting:
        client.run("scontrol", "release" if release else "hold", ",".join(j.job for j in waiting))
    return [j.trial for j in waiting]


def retry(folder: CampaignFolder, trials: Sequence[str]) -> list[str]:
    """Let trials that failed go on from their newest checkpoints when the campaign is resumed; returns them."""
    failed = [t for t in chosen(folder, trials) if state_of(read_events(folder.trial(t).events)) == "failed"]
    for name in failed:
        trial = folder.trial(name)
        (trial.path / CANCELLED).unlink(missing_ok=True)
        epoch = max((e.get("epoch", 0) for e in read_events(trial.events)), default=0)
        trial.append_event({
            "type": "status", "trial": name, "time": time.time(), "epoch": epoch, "step": 0, "status": "interrupted",
            "reason": "to be tried again",
        })  # fmt: skip
    return failed
