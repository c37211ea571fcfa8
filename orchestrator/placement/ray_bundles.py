"""What one trial asks of Ray: a bundle for each of its ranks."""

from __future__ import annotations

import math

from coppice.orchestrator.config.models import ResourcesSpec


def ranks_of(resources: ResourcesSpec) -> int:
    """Processes that train one trial together: one for each GPU, or one for each node where there are no GPUs."""
    return resources.nodes * max(1, resources.gpus)


def bundles_of(resources: ResourcesSpec) -> list[dict[str, float]]:
    """What each rank gets, rank 0 first."""
    ranks = ranks_of(resources)
    if not resources.gpus:
        return [{"CPU": float(resources.cpus)}] * ranks
    cpus = max(math.ceil(resources.cpus / resources.gpus), resources.cpus_per_gpu)
    return [{"CPU": float(cpus), "GPU": 1.0}] * ranks


def resources_of(resources: ResourcesSpec) -> dict[str, float]:
    """What all ranks of a trial get together."""
    bundles = bundles_of(resources)
    return {name: sum(b[name] for b in bundles) for name in bundles[0]}
