"""The jobs of a campaign as anyone with its folder sees them, from any login node, whether its driver runs or not."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coppice.orchestrator.folder.events import FINAL, read_events, state_of, status_event
from coppice.orchestrator.folder.files import exclusive
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.slurm.broker.journal import JOURNAL, Attempt, Journal
from coppice.slurm.client import Client, Job, SlurmError, SlurmUnreachable


@dataclass(frozen=True)
class TrialJobs:
    """The jobs of one trial (or of something else that the journal knows: a node of a pool).

    Attributes:
        trial: its id.
        job: Slurm's id of the newest; empty where none was handed in.
        state: as Slurm says; `gone` where the controller does not know the job any more.
        reason: why it waits, or how it ended.
        nodes: where it runs or ran.
        attempts: how many jobs it has had.
        start: when the newest started, or is expected to, as far as Slurm knows.
    """

    trial: str
    job: str
    state: str
    reason: str
    nodes: str
    attempts: int
    start: str = ""


@dataclass(frozen=True)
class Queue:
    """The jobs of a campaign.

    Attributes:
        trials: of each trial.
        others: that are no trial's: nodes of a pool.
        drivers: that run the campaign, or wait to.
        problem: why Slurm could not be asked; states are empty then. Empty when it answered.
    """

    trials: tuple[TrialJobs, ...]
    others: tuple[TrialJobs, ...]
    drivers: tuple[Job, ...]
    problem: str = ""


def attempts_of(folder: CampaignFolder) -> dict[str, list[Attempt]]:
    """Everything that was handed in, by trial; the nodes of a pool's first start are called `pool1.node0` and so on."""
    attempts_by_key = Journal(folder.journal).attempts()
    for path in sorted(folder.pool.glob(f"*/{JOURNAL}"), key=lambda p: (len(p.parent.name), p.parent.name)):
        attempts_by_key |= {f"pool{path.parent.name}.{key}": attempts for key, attempts in Journal(path).attempts().items()}
    return attempts_by_key


def queue_of(folder: CampaignFolder, client: Client) -> Queue:
    """The jobs of a campaign; one question to Slurm, and what the campaign's folder knows where Slurm does not answer."""
    problem, live = "", {}
    try:
        live = _of_campaign(folder, client.live()) if has_jobs(folder) else {}
    except SlurmError as error:
        problem = str(error)
    attempts = attempts_of(folder)
    names = [t.name for t in folder.trials()]
    others = [key for key in attempts if key not in set(names)]
    drivers = tuple(j for j in live.values() if _drives(folder, j) and not j.ended)

    def jobs_of(keys: Sequence[str]) -> tuple[TrialJobs, ...]:
        return tuple(_newest(key, attempts.get(key, []), None if problem else live) for key in keys)

    return Queue(jobs_of(names), jobs_of(others), drivers, problem)


def jobs_of(folder: CampaignFolder, client: Client) -> list[TrialJobs]:
    """The jobs of all trials; one question to Slurm.

    Raises:
        SlurmError: Slurm is not there, or does not answer.
    """
    attempts = Journal(folder.journal).attempts()
    live = _of_campaign(folder, client.live()) if attempts else {}
    return [_newest(t.name, attempts.get(t.name, []), live) for t in folder.trials()]


def _of_campaign(folder: CampaignFolder, live: Mapping[str, Job]) -> dict[str, Job]:
    """A journal alone does not tell whose jobs they are: it may have been copied with the folder."""
    end = f"-{folder.identity()}"
    return {name: job for name, job in live.items() if job.name.endswith(end)}


def _newest(key: str, attempts: Sequence[Attempt], live: Mapping[str, Job] | None) -> TrialJobs:
    """The newest job; `live` is None where Slurm did not say."""
    own = [a for a in attempts if a.job]
    newest = own[-1].job if own else ""
    unknown = Job(newest, "", "gone" if newest and live is not None else "")
    job = (live or {}).get(newest, unknown)
    return TrialJobs(key, newest, job.state, job.reason, job.nodes, len({a.job for a in own}), job.start)


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
    """Cancel trials for good; returns those that had not ended. Without names the driver's jobs are cancelled first.

    On this machine their driver sees it; where none runs they are marked here. Slurm is asked where the campaign has jobs only.
    """
    if not trials:
        folder.cancelled.touch()
    if not has_jobs(folder):
        under_way = _mark(folder, trials)
        with contextlib.suppress(BlockingIOError), exclusive(folder.in_use):
            TrialRecords(folder).interrupt()
        return under_way
    if not trials:
        client.cancel(j.id for j in client.live().values() if _drives(folder, j))
    under_way = _mark(folder, trials)
    queue = queue_of(folder, client)
    if queue.problem:
        raise SlurmUnreachable(queue.problem)
    jobs = [j for j in queue.trials if j.trial in under_way] + ([] if trials else list(queue.others))
    client.cancel(j.job for j in jobs if j.state in ("PENDING", "RUNNING", "SUSPENDED"))
    return under_way


def _mark(folder: CampaignFolder, trials: Sequence[str]) -> list[str]:
    under_way = [t for t in chosen(folder, trials) if state_of(read_events(folder.trial(t).events)) not in FINAL]
    for name in under_way:
        folder.trial(name).cancelled.touch()
    return under_way


def has_jobs(folder: CampaignFolder) -> bool:
    """Whether anything of a campaign was handed in to Slurm."""
    return folder.jobs.is_dir()


def _drives(folder: CampaignFolder, job: Job) -> bool:
    return job.name.startswith("coppice-driver-") and job.name.endswith(f"-{folder.identity()}")


def hold(folder: CampaignFolder, client: Client, trials: Sequence[str], release: bool) -> list[str]:
    """Keep waiting jobs from starting, or let them; returns the trials.

    Raises:
        ValueError: the campaign's trials are no jobs.
    """
    if not has_jobs(folder):
        raise ValueError(
            f"trials must be Slurm jobs to be held or released, but those of {folder.path} run on this machine; "
            "Ctrl-C (or coppice cancel) ends them, coppice resume goes on."
        )
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
        trial.cancelled.unlink(missing_ok=True)
        epoch = max((e.get("epoch", 0) for e in read_events(trial.events)), default=0)
        trial.append_event(status_event(name, "interrupted", epoch, reason="to be tried again"))
    return failed
