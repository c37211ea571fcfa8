"""Where trials run: `local` is this machine, `job` gives each trial a Slurm job, `pool` packs them onto nodes of Slurm's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from coppice.orchestrator.config.models import CampaignSpec, Named, ResourcesSpec
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.base import PLACEMENTS, OpenPlacement, _known
from coppice.orchestrator.placement.local.placement import local


def check_placement(placement: Named, resources: ResourcesSpec) -> None:
    """Raise what is wrong with a placement, without starting anything.

    Raises:
        ValueError: unknown placement or argument, or a job that the site does not take.
    """
    if placement.name not in PLACEMENTS:
        raise ValueError(f"placement must be one of {list(PLACEMENTS)}, but got {placement.name!r}.")
    _known(placement.name, placement.arguments, PLACEMENTS[placement.name])
    if placement.name == "job":
        from coppice.orchestrator.placement.jobs.request import request_of
        from coppice.slurm.request import options
        from coppice.slurm.site import load_site

        options(load_site(placement.arguments.get("site", "generic")), request_of(placement.arguments, resources))
    if placement.name == "pool":
        from coppice.orchestrator.placement.pool.sizing import shape_of

        shape_of(placement.arguments, resources)




def placed(
    spec: CampaignSpec, folder: CampaignFolder, leaving: Callable[[], bool] = lambda: False
) -> AbstractContextManager[OpenPlacement]:
    """The placement of a campaign.

    Args:
        spec: the campaign.
        folder: its folder.
        leaving: whether this process must end before the campaign does.

    Raises:
        ValueError: see `check_placement`.
    """
    check_placement(spec.placement, spec.resources)
    if spec.placement.name == "local":
        return local(spec.placement.arguments, spec.resources, folder)
    if spec.placement.name == "pool":
        from coppice.orchestrator.placement.pool.placement import pool

        return pool(spec, folder, leaving)
    from coppice.orchestrator.placement.jobs.placement import jobs

    return jobs(spec, folder, leaving)
