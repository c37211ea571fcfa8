"""What a pool is made of: how large its nodes are, what their jobs ask for, and how many trials fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from coppice.orchestrator.config.models import ResourcesSpec
from coppice.orchestrator.placement.ray_bundles import bundles_of, ranks_of
from coppice.slurm.request import Request, options
from coppice.slurm.site import GpuNodes, Site, load_site

HOURS = 24.0


@dataclass(frozen=True)
class Shape:
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

    @property
    def capacity(self) -> int:
        """Trials at a time, when all nodes are there."""
        return self.nodes * (self.room // self.ranks) if self.together else self.nodes * self.room // self.ranks

    def nodes_for(self, trials: int) -> int:
        """How many nodes so many trials can use."""
        needed = trials / (self.room // self.ranks) if self.together else trials * self.ranks / self.room
        return min(self.nodes, math.ceil(needed))


def shape_of(arguments: Mapping[str, Any], resources: ResourcesSpec) -> Shape:
    """The pool that a campaign asks for.

    Args:
        arguments: of the placement.
        resources: of a trial.

    Raises:
        ValueError: an argument is no such number, the site does not take such jobs, or no trial fits into a node.
    """
    site = load_site(arguments.get("site", "generic"))
    if "poll_s" in arguments:
        limits = site.limits.model_copy(update={"poll_every_s": _number("poll_s", arguments["poll_s"])})
        site = site.model_copy(update={"limits": limits})
    kind = _kind(site, arguments, resources)
    request = _request(site, kind, arguments, resources)
    found = options(site, request)
    cpus = request.cpus or int(found["cpus-per-task"]) * int(found["ntasks-per-node"])
    one_task = {**found, "ntasks-per-node": "1", "cpus-per-task": str(cpus)}
    nodes = _count("nodes", arguments.get("nodes", 1))
    room = _room(resources, nodes, {"CPU": float(cpus), "GPU": float(request.gpus)})
    whole = kind is not None and request.gpus == kind.per_node
    return Shape(site, request, one_task, nodes, ranks_of(resources), room, resources.nodes == 1, whole)


def _kind(site: Site, arguments: Mapping[str, Any], resources: ResourcesSpec) -> GpuNodes | None:
    """The kind of node; None for nodes without GPUs."""
    if not (arguments.get("gpus") or resources.gpus):
        return None
    least = max(int(arguments.get("gpus") or 0), resources.gpus)
    found = [k for k in site.gpu_nodes if arguments.get("gpu_type") in (None, k.type)]
    return next((k for k in found if k.per_node >= least), found[0] if found else None)


def _request(site: Site, kind: GpuNodes | None, arguments: Mapping[str, Any], resources: ResourcesSpec) -> Request:
    gpus = _count("gpus", arguments["gpus"], 0) if "gpus" in arguments else kind.per_node if kind else resources.gpus
    cpus = arguments.get("cpus")
    if cpus is None and not gpus:
        raise ValueError(
            f"placement pool must know how many cores of a node it gets where trials use no GPUs, because site {site.name} does "
            "not say how large such nodes are; give cpus, as in pool: {cpus: 16}."
        )
    hours = _number("hours", arguments.get("hours", resources.hours or HOURS))
    base = Request(math.ceil(60 * hours), gpus=gpus, gpu_type=arguments.get("gpu_type"), account=arguments.get("account"))
    cores = None if cpus is None else _count("cpus", cpus)
    memory = None if "memory_gb" not in arguments else _number("memory_gb", arguments["memory_gb"])
    return replace(base, cpus=cores, memory_gb=memory)


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


def _count(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} of placement pool must be a whole number of at least {least}, but is {value!r}.")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name} of placement pool must be a number above 0, but is {value!r}.")
    return float(value)
