"""Where trials run: `local` is this machine, `job` gives each trial a Slurm job, `pool` packs them onto nodes of Slurm's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from coppice.orchestrator.config.models import Campaign, ResourcesSpec
from coppice.orchestrator.config.placement import JobPlacement, Placement, PoolPlacement
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.jobs.request import JobRequest
from coppice.orchestrator.placement.open_placement import OpenPlacement
from coppice.orchestrator.placement.pool.sizing import PoolShape
from coppice.orchestrator.placement.ray_session import prepare_environment


def check_placement(placement: Placement, resources: ResourcesSpec) -> None:
    """Raise what is wrong with a placement, without starting anything.

    Raises:
        ValueError: there is no such site, it does not take such jobs, or no trial fits into a node of the pool.
    """
    if isinstance(placement, JobPlacement):
        JobRequest.of(placement, resources)
    if isinstance(placement, PoolPlacement):
        PoolShape.of(placement, resources)


def placed(
    spec: Campaign, folder: CampaignFolder, leaving: Callable[[], bool] = lambda: False
) -> AbstractContextManager[OpenPlacement]:
    """The placement of a campaign, to be entered for as long as the campaign runs.

    Args:
        spec: the campaign.
        folder: its folder.
        leaving: whether this process must end before the campaign does.
    """
    prepare_environment()  # Ray reads its settings when it is imported, which is now
    placement = spec.placement
    if isinstance(placement, JobPlacement):
        from coppice.orchestrator.placement.jobs.placement import jobs

        return jobs(spec, placement, folder, leaving)
    if isinstance(placement, PoolPlacement):
        from coppice.orchestrator.placement.pool.placement import pool

        return pool(spec, placement, folder, leaving)
    from coppice.orchestrator.placement.local.placement import local

    return local(placement, spec.resources, folder)
