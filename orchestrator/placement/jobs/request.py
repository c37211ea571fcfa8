"""What the job of one trial asks of a Slurm site, from what the campaign gives to a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from coppice.orchestrator.config.models import ResourcesSpec
from coppice.orchestrator.config.placement import JobPlacement, SlurmPlacement
from coppice.slurm.request import Request, longest_min, options
from coppice.slurm.site import Site

HOURS = 24.0
"""Time limit of a job where the campaign does not say."""


@dataclass(frozen=True)
class JobRequest:
    """What every trial's job is handed in with.

    Attributes:
        site: where it runs.
        request: what it needs.
        options: of sbatch.
    """

    site: Site
    request: Request
    options: Mapping[str, str]

    @classmethod
    def of(cls, placement: JobPlacement, resources: ResourcesSpec) -> JobRequest:
        """What a campaign's trials ask for.

        Raises:
            SiteError: there is no such site, or it does not take such jobs.
        """
        site = placement.open_site()
        request = request_of(placement, resources, site)
        return cls(site, request, options(site, request))


def request_of(placement: SlurmPlacement, resources: ResourcesSpec, site: Site) -> Request:
    """What one trial's job needs; without `resources.hours` for a day, or as long as the site lets it run."""
    cpus = max(resources.cpus, resources.gpus * resources.cpus_per_gpu)
    request = Request(
        time_min=math.ceil(60 * (resources.hours or HOURS)),
        nodes=resources.nodes,
        gpus=resources.gpus,
        gpu_type=placement.gpu_type,
        cpus=cpus if resources.cpus > 1 or resources.cpus_per_gpu > 1 else None,
        memory_gb=placement.memory_gb,
        account=placement.account,
    )
    if resources.hours is None and (longest := longest_min(site, request)):
        request = replace(request, time_min=min(request.time_min, longest))
    return request
