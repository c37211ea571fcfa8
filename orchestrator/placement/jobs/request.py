"""PURPOSE"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from coppice.orchestrator.config.models import ResourcesSpec
from coppice.slurm.request import Request, longest_min
from coppice.slurm.site import load_site

HOURS = 24.0


def request_of(arguments: Mapping[str, Any], resources: ResourcesSpec) -> Request:
    """What one trial's job asks for; without `resources.hours` a day, or as long as the site lets it run."""
    cpus = max(resources.cpus, resources.gpus * resources.cpus_per_gpu)
    asked = cpus if resources.cpus > 1 or resources.cpus_per_gpu > 1 else None
    further = {k: arguments.get(k) for k in ("gpu_type", "memory_gb", "account")}
    request = Request(math.ceil(60 * (resources.hours or HOURS)), resources.nodes, resources.gpus, cpus=asked, **further)
    if resources.hours is None and (longest := longest_min(load_site(arguments.get("site", "generic")), request)):
        request = replace(request, time_min=min(request.time_min, longest))
    return request
