"""What jobs have used, from Slurm's accounts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from coppice.slurm.client import Client
from coppice.slurm.nodes import expand
from coppice.slurm.site import Site

FIELDS = (
    "JobID", "State", "Reason", "Submit", "Start", "End", "ElapsedRaw", "NNodes", "AllocTRES", "NodeList", "TotalCPU",
    "TRESUsageInAve",
)  # fmt: skip
AT_ONCE = 2000
"""Most jobs in one question: a command line has an end."""


@dataclass(frozen=True)
class Run:
    """One run of a job; a job that was requeued has several.

    Attributes:
        job: `123` or `123_4`.
        state: as the accounts have it.
        reason: why it waits, or how it ended.
        submitted, started, ended: seconds since the epoch; None where that has not happened.
        elapsed_s: for how long it has run.
        nodes: names of its nodes.
        cpus: that it has, of all nodes together.
        gpus: likewise.
        cpu_s: seconds of processors it has used; 0 where the site does not measure.
        gpu_percent: how busy its GPUs were; None where the site does not measure.
    """

    job: str
    state: str
    reason: str
    submitted: float | None
    started: float | None
    ended: float | None
    elapsed_s: float
    nodes: tuple[str, ...] = ()
    cpus: int = 0
    gpus: int = 0
    cpu_s: float = 0.0
    gpu_percent: float | None = None


@dataclass(frozen=True)
class Node:
    """What a whole node has."""

    cpus: int
    gpus: int


def runs(client: Client, jobs: Iterable[str]) -> dict[str, list[Run]]:
    """All runs of these jobs by job, oldest first; jobs that the accounts do not know are left out.

    Raises:
        SlurmError: there are no accounts at this site.
        SlurmUnreachable: they do not answer.
    """
    wanted = sorted(set(jobs))
    lines: list[str] = []
    for start in range(0, len(wanted), AT_ONCE):
        ids = ",".join(wanted[start : start + AT_ONCE])
        lines += client.run("sacct", "-n", "-P", "-D", "-j", ids, "-o", ",".join(FIELDS), patience_s=0.0).splitlines()
    return _read(lines, set(wanted))


def _read(lines: Sequence[str], wanted: set[str]) -> dict[str, list[Run]]:
    runs_of: dict[str, list[Run]] = {}
    for line in lines:
        row = dict(zip(FIELDS, line.split("|"), strict=False))
        if len(row) < len(FIELDS):
            continue
        job, dot, _ = row["JobID"].partition(".")
        if job not in wanted:
            continue
        if not dot:
            runs_of.setdefault(job, []).append(_run(job, row))
        elif runs_of.get(job) and (percent := _gpu_percent(row["TRESUsageInAve"])) is not None:
            last = runs_of[job][-1]
            runs_of[job][-1] = replace(last, gpu_percent=max(percent, last.gpu_percent or 0.0))
    return {job: sorted(held, key=lambda r: r.started or r.submitted or 0.0) for job, held in runs_of.items()}


def _run(job: str, row: Mapping[str, str]) -> Run:
    got = tres(row["AllocTRES"])
    gpus = got.get("gres/gpu", 0) or sum(v for k, v in got.items() if k.startswith("gres/gpu:"))
    nodes = row["NodeList"] if not row["NodeList"].startswith("None") else ""
    return Run(
        job,
        row["State"].split()[0] if row["State"] else "",
        "" if row["Reason"] == "None" else row["Reason"],
        _time(row["Submit"]), _time(row["Start"]), _time(row["End"]),
        float(row["ElapsedRaw"] or 0), tuple(expand(nodes)), got.get("cpu", 0), gpus, duration_s(row["TotalCPU"]),
    )  # fmt: skip


def tres(text: str) -> dict[str, int]:
    """`cpu=8,gres/gpu:a100=2,mem=4G,node=1`: what is counted in whole numbers."""
    pairs = (part.partition("=") for part in text.split(","))
    return {name: int(value) for name, _, value in pairs if value.isdigit()}


def duration_s(text: str) -> float:
    """Seconds of `[days-][[hours:]minutes:]seconds[.fraction]`; 0 for anything else."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", text.strip())
    if match is None:
        return 0.0
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + seconds


def _gpu_percent(usage: str) -> float | None:
    match = re.search(r"gres/gpuutil=(\d+(?:\.\d+)?)", usage)
    return float(match[1]) if match else None


def _time(text: str) -> float | None:
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:  # Unknown, None
        return None


def whole_nodes(client: Client) -> dict[str, Node]:
    """What each node of the cluster has.

    Raises:
        SlurmError: the command is not there, or Slurm does not answer.
    """
    nodes = {}
    for line in client.run("sinfo", "-h", "-N", "-o", "%N|%c|%G", patience_s=0.0).splitlines():
        name, cpus, gres = line.split("|", 2)
        gpus = sum(int(n) for n in re.findall(r"gpu(?::[A-Za-z][^:,()]*)?:(\d+)", gres))
        nodes[name] = Node(int(cpus.rstrip("+")), gpus)
    return nodes


def billed_hours(site: Site, every: Mapping[str, Sequence[Run]], nodes: Mapping[str, Node]) -> dict[str, tuple[float, float]]:
    """(core-hours, GPU-hours) that a site counts for the runs under each name.

    Where whole nodes are billed, a node counts in full for as long as any of the runs is on it, and that is shared among the
    runs by how long they were there with how many cores.

    Args:
        site: how it bills.
        every: runs by name, as `runs` returns them.
        nodes: see `whole_nodes`; a node that is not among them counts as the part of it that a run has.
    """
    if site.billing == "cores":
        return {name: _own(held) for name, held in every.items()}
    return _by_nodes(every, nodes)


def _own(held: Sequence[Run]) -> tuple[float, float]:
    return sum(r.elapsed_s * r.cpus for r in held) / 3600, sum(r.elapsed_s * r.gpus for r in held) / 3600


def _by_nodes(every: Mapping[str, Sequence[Run]], nodes: Mapping[str, Node]) -> dict[str, tuple[float, float]]:
    stays: dict[str, list[tuple[str, Run]]] = {}
    for name, held in every.items():
        for run in held:
            for node in run.nodes:
                stays.setdefault(node, []).append((name, run))
    hours = {name: [0.0, 0.0] for name in every}
    for node, there in stays.items():
        taken = _union_s([(r.started or 0.0, (r.started or 0.0) + r.elapsed_s) for _, r in there])
        weight = sum(r.elapsed_s * r.cpus / len(r.nodes) for _, r in there)
        for name, run in there:
            if weight <= 0:
                continue
            whole = nodes.get(node) or Node(run.cpus // len(run.nodes), run.gpus // len(run.nodes))
            share = taken / 3600 * (run.elapsed_s * run.cpus / len(run.nodes)) / weight
            hours[name][0] += share * whole.cpus
            hours[name][1] += share * whole.gpus
    return {name: (pair[0], pair[1]) for name, pair in hours.items()}


def _union_s(intervals: list[tuple[float, float]]) -> float:
    """For how long any of these lasted."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
