"""Placement `job`: the driver holds Tune's controller and nothing of the trials; their jobs come and go with the queue."""

from __future__ import annotations

import contextlib
import secrets
import warnings
from collections.abc import Callable, Iterator

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.placement import JobPlacement
from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.layout import CampaignFolder, cancelled
from coppice.orchestrator.placement.ended_jobs import JobsKeepDying
from coppice.orchestrator.placement.job_names import trial_jobs_name
from coppice.orchestrator.placement.jobs.request import JobRequest
from coppice.orchestrator.placement.jobs.supervisor import JobSupervisor
from coppice.orchestrator.placement.open_placement import OpenPlacement
from coppice.orchestrator.placement.ray_inprocess import in_process_trials
from coppice.orchestrator.placement.ray_session import ray_session
from coppice.orchestrator.placement.remote_trainable import RemoteTrainable
from coppice.slurm.broker.broker import Broker
from coppice.slurm.broker.journal import Journal

MOST = 1000
"""Trials under way at a time, where nothing else limits them."""


@contextlib.contextmanager
def jobs(
    spec: Campaign, placement: JobPlacement, folder: CampaignFolder, leaving: Callable[[], bool]
) -> Iterator[OpenPlacement]:
    """Every trial is a job. When the campaign has ended no job is left; when its driver must end before, or fails, they go on.

    Raises:
        SiteError: the site does not take such jobs.
        JobsKeepDying: see `JobSupervisor.poll`.
        DriverReplaced: likewise.
    """
    job = JobRequest.of(placement, spec.resources)
    with _the_only_driver(folder), ray_session(folder, num_cpus=1, num_gpus=0, dashboard=placement.dashboard) as lost:
        journal = Journal(folder.journal)
        broker = Broker(trial_jobs_name(spec, folder), folder.jobs, job.site, journal, placement.parallel)
        most = min(spec.search.max_concurrent or MOST, job.site.limits.submitted or MOST)
        RemoteTrainable.supervisor = supervisor = JobSupervisor(broker, job.request, leaving=leaving)
        try:
            with in_process_trials(most):
                yield OpenPlacement(RemoteTrainable, most, lost=lost)
        except JobsKeepDying:
            _end(broker, folder, supervisor.keep)
            raise
        _end(broker, folder, leaving() and not cancelled(folder))


def _end(broker: Broker, folder: CampaignFolder, keep: bool) -> None:
    left = [] if keep else broker.end()
    if left:
        warnings.warn(f"jobs {left} of {folder.path} may still be there: coppice cancel {folder.path}", stacklevel=2)


@contextlib.contextmanager
def _the_only_driver(folder: CampaignFolder) -> Iterator[None]:
    """Where locks do not reach from one machine to the other, a second driver may start: the newest one goes on alone."""
    folder.jobs.mkdir(exist_ok=True)
    before = attempts.newest(folder.jobs)
    attempts.claim(folder.jobs, ((before[0] if before else 0) + 1, secrets.randbelow(2**30)))
    try:
        yield
    finally:
        attempts.release(folder.jobs)
