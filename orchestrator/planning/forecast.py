"""What a campaign would hand in at a Slurm site, and what it would use there, without handing in anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coppice.orchestrator.campaign.driver import script_text
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.placement import JobPlacement, PoolPlacement
from coppice.orchestrator.folder.checkpoint import KEPT_CHECKPOINTS
from coppice.orchestrator.folder.layout import DEEPEST, CampaignFolder
from coppice.orchestrator.placement.job_names import pool_jobs_name, trial_jobs_name
from coppice.orchestrator.placement.jobs.request import JobRequest
from coppice.orchestrator.placement.pool.sizing import PoolShape
from coppice.orchestrator.planning.preview import Preview
from coppice.slurm.request import Request
from coppice.slurm.site import Site, load_site
from coppice.slurm.submission import script

FILES_A_CHECKPOINT = 5
FILES_A_TRIAL = 5
"""params.json, events.jsonl, attempt.json, the lock, and the folder."""
FILES_A_JOB = 4
"""submitit's script, its two pickles, and the log."""
FILES_A_CAMPAIGN = 30
BYTES_A_PARAMETER = 12
"""A weight and two moments of an optimizer, four bytes each."""
LONGEST_PATH = 255


@dataclass(frozen=True)
class Forecast:
    """What a campaign would do at a site.

    Attributes:
        driver: sbatch script of the driver.
        job: sbatch script of a trial's job, or of a node of the pool.
        kind: what such a job is: `trial` or `node`.
        jobs: how many there would be at least, the driver's left aside.
        core_hours: billed at most: every job for as long as it may run.
        files: written at most, kept at the same time.
        bytes: of checkpoints, at the size of the seed networks.
        notes: what to think of.
    """

    driver: str
    job: str
    kind: str
    jobs: int
    core_hours: float
    files: int
    bytes: int
    notes: tuple[str, ...]


def forecast(spec: Campaign, site_name: str, driver: Request, sampled: Sequence[Preview]) -> Forecast:
    """What a campaign would hand in, use and write.

    Args:
        spec: a campaign with placement job or pool.
        site_name: of the driver.
        driver: what the driver's job asks for.
        sampled: trials that the sampler would try.
    """
    folder = CampaignFolder((spec.root / spec.name).absolute())
    trials = spec.search.trials + spec.compare.static + (spec.compare.big is not None)
    jobs = _jobs(spec, folder, trials)
    parameters = max((p.parameters for p in sampled), default=0)
    files = FILES_A_CAMPAIGN + trials * (FILES_A_TRIAL + KEPT_CHECKPOINTS * FILES_A_CHECKPOINT) + jobs.count * FILES_A_JOB
    return Forecast(
        driver=script_text(spec, folder, load_site(site_name), driver),
        job=script(jobs.folder, jobs.site, jobs.options, jobs.name),
        kind=jobs.kind,
        jobs=jobs.count,
        core_hours=jobs.count * _core_hours(jobs.site, jobs.request, jobs.options),
        files=files,
        bytes=trials * KEPT_CHECKPOINTS * parameters * BYTES_A_PARAMETER,
        notes=(*_notes(jobs.site, folder.path, files), *jobs.notes),
    )


@dataclass(frozen=True)
class _Jobs:
    """The jobs that trials run in, all of one kind; the attributes are as those of `Forecast`, or what Slurm is handed."""

    kind: str
    name: str
    folder: Path
    site: Site
    request: Request
    options: Mapping[str, str]
    count: int
    notes: tuple[str, ...]


def _jobs(spec: Campaign, folder: CampaignFolder, trials: int) -> _Jobs:
    if isinstance(spec.placement, PoolPlacement):
        return _in_pool(spec, PoolShape.of(spec.placement, spec.resources), folder, trials)
    if isinstance(spec.placement, JobPlacement):
        return _in_jobs(spec, JobRequest.of(spec.placement, spec.resources), folder, trials)
    raise ValueError("only a campaign with placement job or pool has anything to hand in.")


def _in_jobs(spec: Campaign, job: JobRequest, folder: CampaignFolder, trials: int) -> _Jobs:
    site, request = job.site, job.request
    whole = next((k.per_node for k in site.gpu_nodes if request.gpu_type in (None, k.type)), 0)
    notes = []
    if site.billing == "nodes" and request.gpus and request.gpus < whole:
        nodes = min(4, math.ceil(trials * request.gpus / whole))
        notes.append(
            f"Whole nodes are billed: a trial with {request.gpus} of {whole} GPUs pays for all of them. Placement pool fills "
            f"whole nodes: placement: {{pool: {{site: {site.name}, nodes: {nodes}}}}}."
        )
    return _Jobs("trial", trial_jobs_name(spec, folder), folder.jobs, site, request, job.options, trials, tuple(notes))


def _in_pool(spec: Campaign, shape: PoolShape, folder: CampaignFolder, trials: int) -> _Jobs:
    nodes = shape.nodes_for(trials)
    own = folder.pool / "1"
    notes = _pool_notes(shape, nodes, trials)
    return _Jobs("node", pool_jobs_name(spec, folder), own, shape.site, shape.request, shape.options, nodes, tuple(notes))


def _pool_notes(shape: PoolShape, nodes: int, trials: int) -> list[str]:
    at_a_time = min(trials, shape.capacity)
    notes = [f"{at_a_time} of {trials} trials run at a time, packed onto {nodes} nodes; a node that is not needed is given back."]
    if shape.site.billing == "nodes":
        notes.append(
            "Whole nodes are billed, and the pool takes whole nodes." if shape.whole
            else "Whole nodes are billed, but the pool takes parts of nodes; leave out gpus to take them whole."
        )  # fmt: skip
    return notes


def _core_hours(site: Site, request: Request, given: Mapping[str, str]) -> float:
    """Core-hours that one job is billed for if it runs to its time limit."""
    hours = request.time_min / 60
    cores = int(given["ntasks-per-node"]) * int(given["cpus-per-task"])
    if site.billing == "nodes" and request.gpus:
        kind = next(k for k in site.gpu_nodes if request.gpu_type in (None, k.type) and k.per_node >= request.gpus)
        cores = kind.per_node * kind.cpus_per_gpu
    return request.nodes * cores * hours


def _notes(site: Site, folder: Path, files: int) -> list[str]:
    notes = []
    longest = len(str(folder / DEEPEST))
    notes.append(f"The longest path has {longest} characters.")
    if longest > LONGEST_PATH:
        notes.append("Some file systems and tools take no more than 255 of them; choose a shorter root.")
    if site.scratch.days:
        notes.append(f"Scratch at {site.name} is deleted after {site.scratch.days} days without a word.")
    if site.scratch.files and files > site.scratch.files / 20:
        notes.append(f"That is {100 * files / site.scratch.files:.0f} % of the files that one may have there.")
    if site.requeue == "probe":
        notes.append("Nobody says whether jobs may requeue themselves there; the driver queues its successor beforehand.")
    return notes


def as_text(expected: Forecast) -> str:
    """A forecast as people read it: both scripts, then what they would cost."""
    node = expected.kind == "node"
    more = "more where their time limits end before the campaign" if node else "more where they do not finish in one"
    parts = [
        "The driver's script:", _indented(expected.driver),
        "The script of a node of the pool:" if node else "The script of a trial's job:", _indented(expected.job),
        f"{expected.jobs} jobs of {'nodes' if node else 'trials'} ({more}), at most {expected.core_hours:,.0f} core-hours in "
        f"their first jobs, up to {expected.files:,} files, about {expected.bytes / 1e6:,.1f} MB of checkpoints.",
        *expected.notes,
    ]  # fmt: skip
    return "\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join("    " + line for line in text.rstrip().split("\n"))
