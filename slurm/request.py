"""From what a job needs to the options with which it is handed in at a site."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

from coppice.slurm.site import GpuNodes, Queue, Site, SiteError

ACCOUNT = re.compile(r"[A-Za-z0-9_.@+-]+")


@dataclass(frozen=True)
class Request:
    """What a job needs.

    Attributes:
        time_min: time limit, minutes.
        nodes: how many.
        gpus: on each node; one task for each, or one task a node where there are none.
        gpu_type: as the site names it; None takes the site's first.
        cpus: of a node; None takes what the site gives to that many GPUs, or one.
        memory_gb: of a node; None takes the site's share.
        account: project to be billed.
    """

    time_min: int
    nodes: int = 1
    gpus: int = 0
    gpu_type: str | None = None
    cpus: int | None = None
    memory_gb: float | None = None
    account: str | None = None


def options(site: Site, request: Request) -> dict[str, str]:
    """Options of sbatch, by long name without dashes, values as text.

    Raises:
        SiteError: the site has no such GPUs or not so many, no queue takes the job, or the account is missing.
    """
    kind = _gpu_nodes(site, request)
    queue = _queue(site, request, kind)
    chosen = {"time": str(request.time_min), "nodes": str(request.nodes), "ntasks-per-node": str(max(request.gpus, 1))}
    cpus = request.cpus or (kind.cpus_per_gpu * request.gpus if kind else 1)
    chosen["cpus-per-task"] = str(max(1, cpus // max(request.gpus, 1)))
    chosen |= _gpus(site, request, kind) | _memory(site, request, kind, cpus)
    named = {"partition": queue.partition, "qos": queue.qos, "constraint": _constraint(site, queue, kind)}
    named |= {"account": _account(site, request, kind), "wckey": site.wckey or None}
    if site.exclusive == "job":
        chosen["exclusive"] = ""
    return chosen | {name: value for name, value in named.items() if value}


def longest_min(site: Site, request: Request) -> int:
    """The longest time limit, in minutes, that the site gives to such a job, whatever time it asks for; 0 where it takes none."""
    return max((queue.max_min for queue in _queues(site, request, _gpu_nodes(site, request))), default=0)


def memory_gb(site: Site, request: Request) -> float | None:
    """Memory of a node that such a job gets, as far as the site file says; None where it does not."""
    given = options(site, request)
    gpus = max(1, request.gpus)
    for name, parts in (("mem", 1), ("mem-per-cpu", int(given["cpus-per-task"]) * gpus), ("mem-per-gpu", gpus)):
        if name in given:
            return float(given[name].removesuffix("M")) / 1024 * parts
    return None


def _gpu_nodes(site: Site, request: Request) -> GpuNodes | None:
    if request.gpus == 0:
        return None
    if not site.gpu_nodes:
        raise SiteError(f"a job asks for {request.gpus} GPUs, but site {site.name} has none; set resources.gpus to 0.")
    types = [k.type for k in site.gpu_nodes if k.type]
    kinds = [k for k in site.gpu_nodes if request.gpu_type in (None, k.type)]
    if not kinds:
        near = difflib.get_close_matches(str(request.gpu_type), types, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise SiteError(f"the type of GPU must be one of {types} at site {site.name}, but is {request.gpu_type!r}{hint}.")
    fitting = [k for k in kinds if k.per_node >= request.gpus]
    if not fitting:
        most = max(k.per_node for k in kinds)
        raise SiteError(f"a node of site {site.name} has at most {most} such GPUs, but {request.gpus} are asked for; use nodes.")
    return fitting[0]


def _queues(site: Site, request: Request, kind: GpuNodes | None) -> list[Queue]:
    """Those that take such a job, however long it is."""

    def takes(queue: Queue) -> bool:
        right = queue.gpus == "any" or (queue.gpus == "only") == (kind is not None)
        typed = not queue.gpu_types or (kind is not None and kind.type in queue.gpu_types)
        return right and typed and (queue.max_nodes is None or queue.max_nodes >= request.nodes)

    return [q for q in site.queues if takes(q)]


def _queue(site: Site, request: Request, kind: GpuNodes | None) -> Queue:
    open_ones = _queues(site, request, kind)
    for queue in open_ones:
        if request.time_min <= queue.max_min:
            return queue
    if open_ones:
        most = max(q.max_min for q in open_ones)
        raise SiteError(
            f"a job at site {site.name} may run for at most {most} min, but {request.time_min} min are asked for; ask for less: "
            "trials go on in their next job."
        )
    what = f"{request.nodes} nodes with {request.gpus} GPUs each" if kind else f"{request.nodes} nodes without GPUs"
    raise SiteError(f"no queue of site {site.name} takes jobs of {what}.")


def _gpus(site: Site, request: Request, kind: GpuNodes | None) -> dict[str, str]:
    if kind is None:
        return {}
    if site.gpu_style == "gpus-per-node":
        return {"gpus-per-node": str(request.gpus)}
    return {"gres": f"gpu:{kind.type}:{request.gpus}" if site.gpu_style == "gres-typed" else f"gpu:{request.gpus}"}


def _memory(site: Site, request: Request, kind: GpuNodes | None, cpus: int) -> dict[str, str]:
    if site.memory_style == "none":
        return {}
    share = kind.memory_gb_per_gpu * request.gpus if kind and kind.memory_gb_per_gpu else None
    by_cpu = site.memory_gb_per_cpu * cpus if site.memory_gb_per_cpu else None
    memory = request.memory_gb or share or by_cpu
    if memory is None:
        return {}
    parts = {"mem": 1, "mem-per-cpu": cpus, "mem-per-gpu": max(request.gpus, 1)}[site.memory_style]
    return {site.memory_style: f"{math.ceil(memory * 1024 / parts)}M"}


def _constraint(site: Site, queue: Queue, kind: GpuNodes | None) -> str | None:
    constraints = [c for c in (queue.constraint, kind.constraint if kind else site.cpu_constraint) if c]
    return "&".join(f"({c})" if "|" in c else c for c in constraints) or None


def _account(site: Site, request: Request, kind: GpuNodes | None) -> str | None:
    if request.account is None:
        if site.account.required:
            raise SiteError(f"site {site.name} wants an account (the project to be billed), but none is given; add --account.")
        return None
    if not ACCOUNT.fullmatch(request.account):
        raise SiteError(f"an account is letters, digits and _ . @ + -, but {request.account!r} was given.")
    template = site.account.template if kind else site.account.without_gpus
    return template.format(account=request.account, gpu_type=(kind.type if kind else None) or "")
