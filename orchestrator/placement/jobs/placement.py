"""Placement `job`: the driver holds Tune's controller and nothing of the trials; their jobs come and go with the queue."""

from __future__ import annotations

import contextlib
import secrets
import warnings
from collections.abc import Callable, Iterator

from coppice.orchestrator.config.models import CampaignSpec
from coppice.orchestrator.folder import attempts as fence
from coppice.orchestrator.folder.layout import CampaignFolder, cancelled
from coppice.orchestrator.placement.base import OpenPlacement
from coppice.orchestrator.placement.ended_jobs import JobsKeepDying
from coppice.orchestrator.placement.jobs.request import request_of
from coppice.orchestrator.placement.jobs.supervisor import JobSupervisor
from coppice.orchestrator.placement.ray_session import ray_session
from coppice.slurm.broker.broker import Broker
from coppice.slurm.broker.journal import Journal
from coppice.slurm.site import load_site

MOST = 1000
"""Trials under way at a time, where nothing else limits them."""




def broker_of(spec: CampaignSpec, folder: CampaignFolder) -> Broker:
    """The broker of a campaign's jobs."""
    arguments = spec.placement.arguments
    site = load_site(arguments.get("site", "generic"))
    if "poll_s" in arguments:
        site = site.model_copy(update={"limits": site.limits.model_copy(update={"poll_every_s": float(arguments["poll_s"])})})
    folder.jobs.mkdir(exist_ok=True)
    name = f"coppice-{spec.name}-{folder.identity()}"
    return Broker(name, folder.jobs, site, Journal(folder.jobs / "journal.jsonl"), int(arguments.get("parallel", 256)))


@contextlib.contextmanager
def jobs(spec: CampaignSpec, folder: CampaignFolder, leaving: Callable[[], bool]) -> Iterator[OpenPlacement]:
    """Every trial is a job. When the campaign has ended no job is left; when its driver must end before, or fails, they go on.

    Raises:
        JobsKeepDying: see `JobSupervisor.poll`.
        DriverReplaced: likewise.
    """
    dashboard = bool(spec.placement.arguments.get("dashboard", False))
    with _the_only_driver(folder), ray_session(folder, num_cpus=1, num_gpus=0, include_dashboard=dashboard):
        from coppice.orchestrator.placement.ray_inprocess import in_process_trials
        from coppice.orchestrator.placement.remote_trainable import RemoteTrainable

        broker = broker_of(spec, folder)
        most = min(spec.search.max_concurrent or MOST, broker.site.limits.submitted or MOST)
        request = request_of(spec.placement.arguments, spec.resources)
        RemoteTrainable.supervisor = supervisor = JobSupervisor(broker, request, leaving=leaving)
        try:
            with in_process_trials(most):
                yield OpenPlacement(RemoteTrainable, most)
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
    before = fence.newest(folder.jobs)
    fence.claim(folder.jobs, ((before[0] if before else 0) + 1, secrets.randbelow(2**30)))
    try:
        yield
    finally:
        fence.release(folder.jobs)
