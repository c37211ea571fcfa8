"""What a pool is made of: how large its nodes are, what their jobs ask for, and how many trials fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from coppice.orchestrator.config.models import ResourcesSpec
from coppice.orchestrator.config.placement import PoolPlacement
from coppice.orchestrator.placement.ray_bundles import bundles_of, ranks_of
from coppice.slurm.request import Request, options
from coppice.slurm.site import GpuNodes, Site

HOURS = 24.0
"""Time limit of a node's job where the campaign does not say."""


@dataclass(frozen=True)
class PoolShape:
    """A pool.

    Attributes:
        site: where its nodes are.
        request: of one node's job.
        options: of sbatch for that job.
        nodes: how many there are at most.
        ranks: processes of one trial.
        room: ranks that fit into one node at a time.
        together: whether the ranks of a trial share a node.
        whole: whether a node's job takes all GPUs of its node.
    """

    site: Site
    request: Request
    options: Mapping[str, str]
    nodes: int
    ranks: int
    room: int
    together: bool
    whole: bool

    @classmethod
    def of(cls, placement: PoolPlacement, resources: ResourcesSpec) -> PoolShape:
        """The pool that a campaign asks for; `resources` are those of a trial.

        Raises:
            ValueError: the site does not take such jobs, or no trial fits into a node.
        """
        site = placement.open_site()
        kind = _kind(site, placement, resources)
        request = _request(site, kind, placement, resources)
        given = options(site, request)
        cpus = request.cpus or int(given["cpus-per-task"]) * int(given["ntasks-per-node"])
        one_task = {**given, "ntasks-per-node": "1", "cpus-per-task": str(cpus)}
        room = _room(resources, placement.nodes, {"CPU": float(cpus), "GPU": float(request.gpus)})
        whole = kind is not None and request.gpus == kind.per_node
        return cls(site, request, one_task, placement.nodes, ranks_of(resources), room, resources.nodes == 1, whole)

    @property
    def capacity(self) -> int:
        """Trials at a time, when all nodes are there."""
        return self.nodes * (self.room // self.ranks) if self.together else self.nodes * self.room // self.ranks

    def nodes_for(self, trials: int) -> int:
        """How many nodes so many trials can use."""
        needed = trials / (self.room // self.ranks) if self.together else trials * self.ranks / self.room
        return min(self.nodes, math.ceil(needed))


def _kind(site: Site, placement: PoolPlacement, resources: ResourcesSpec) -> GpuNodes | None:
    """The kind of node; None for nodes without GPUs."""
    least = max(placement.gpus or 0, resources.gpus)
    if not least:
        return None
    kinds = [kind for kind in site.gpu_nodes if placement.gpu_type in (None, kind.type)]
    return next((kind for kind in kinds if kind.per_node >= least), kinds[0] if kinds else None)


def _request(site: Site, kind: GpuNodes | None, placement: PoolPlacement, resources: ResourcesSpec) -> Request:
    gpus = placement.gpus
    if gpus is None:
        gpus = kind.per_node if kind else resources.gpus
    if placement.cpus is None and not gpus:
        raise ValueError(
            f"placement pool must know how many cores of a node it gets where trials use no GPUs, because site {site.name} does "
            "not say how large such nodes are; give cpus, as in pool: {cpus: 16}."
        )
    return Request(
        time_min=math.ceil(60 * (placement.hours or resources.hours or HOURS)),
        gpus=gpus,
        gpu_type=placement.gpu_type,
        cpus=placement.cpus,
        memory_gb=placement.memory_gb,
        account=placement.account,
    )


def _room(resources: ResourcesSpec, nodes: int, there: Mapping[str, float]) -> int:
    """How many ranks fit into a node."""
    if resources.nodes > nodes:
        raise ValueError(
            f"a trial must fit into the pool, but resources.nodes is {resources.nodes} and the pool has {nodes}; raise nodes of "
            "placement pool."
        )
    bundle, ranks = bundles_of(resources)[0], ranks_of(resources) // resources.nodes
    for name, amount in bundle.items():
        if amount * ranks > there[name]:
            raise ValueError(
                f"a trial must fit into a node of the pool, but resources ask for {amount * ranks:g} {name} and a node has "
                f"{there[name]:g}; lower resources, or raise {name.lower()}s of placement pool."
            )
    return min(int(there[name] // amount) for name, amount in bundle.items() if amount)
