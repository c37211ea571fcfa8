"""What a trial's next job must ask for. Networks grow, so what the first job was given may not be enough for the tenth.

Only what the last job has shown counts. It ran out of memory: the next one gets half as much again, or as many times as much as
the network has grown in parameters. It can no longer train from one checkpoint to the next within its time limit: the next one
gets twice the time that takes, up to the site's longest limit. The number of GPUs is never changed: a trial on other GPUs than
before computes other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder.files import read_json, write_json
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.slurm.request import Request, longest_min, memory_gb, options
from coppice.slurm.site import Site

MORE_MEMORY, MOST_MEMORY = 1.5, 4.0
"""Least and largest factor from one job to the next."""
MEMORY_GB = 4.0
"""What a job is taken to have had where neither the campaign nor the site file says."""
GROWS = 1.25
"""How much longer than the last epoch the next ones may take."""
GROWN = ("memory_gb", "cpus", "time_min")
"""What may grow, of a `Request`."""

Event = Mapping[str, Any]


class NeverFits(RuntimeError):
    """No further job would bring the trial on; the message says why."""


def raised(trial: Path, request: Request) -> Request:
    """The request, raised to what an earlier job of the trial has shown to be necessary."""
    path = TrialFolder(trial).request
    before = read_json(path) if path.exists() else {}
    more = {k: v for k, v in before.items() if k in GROWN and v is not None and v > (getattr(request, k) or 0)}
    return replace(request, **more)


@dataclass(frozen=True)
class LastJob:
    """A trial's job that has ended.

    Attributes:
        request: what it asked for.
        state: how it ended, in Slurm's words.
        lost: jobs in a row, this one included, that brought no new checkpoint.
    """

    request: Request
    state: str
    lost: int


def next_request(site: Site, trial: TrialFolder, last: LastJob, events: Sequence[Event], every: int) -> Request:
    """What the next job asks for; written down in the trial's folder when it is more than before.

    Args:
        site: where it runs.
        trial: its folder.
        last: its last job.
        events: of the trial.
        every: epochs from one checkpoint to the next.

    Raises:
        NeverFits: there is no more to ask for.
    """
    larger = _more_memory(site, last.request, events) if last.state == "OUT_OF_MEMORY" else last.request
    larger = _more_time(site, replace(last, request=larger), events, every)
    if larger != last.request:
        write_json(trial.request, {k: v for k, v in asdict(larger).items() if k in GROWN})
    return larger


def _more_memory(site: Site, request: Request, events: Sequence[Event]) -> Request:
    sizes = [e["parameters"] for e in events if e["type"] == "metrics" and e.get("parameters")]
    factor = min(MOST_MEMORY, max(MORE_MEMORY, sizes[-1] / sizes[0] if sizes else 1.0))
    if site.memory_style != "none":
        had = request.memory_gb or memory_gb(site, request) or MEMORY_GB
        return replace(request, memory_gb=had * factor)
    if site.exclusive == "job":
        raise NeverFits(
            f"it ran out of memory on {request.nodes} whole nodes, and site {site.name} gives none beyond those; limit the "
            "network's growth (adaptations' limit) or lower training.batch_size."
        )
    cpus = int(options(site, request)["cpus-per-task"]) * max(request.gpus, 1)
    return replace(request, cpus=math.ceil(cpus * factor))  # cores bring their memory along


def _more_time(site: Site, last: LastJob, events: Sequence[Event], every: int) -> Request:
    request = last.request
    seconds = [e["seconds"] for e in events if e["type"] == "metrics" and "seconds" in e]
    needed_min = math.ceil(GROWS * every * seconds[-1] / 60) if seconds else 1
    if last.state == "TIMEOUT" and last.lost:
        needed_min = max(needed_min, request.time_min + 1)
    if needed_min <= request.time_min:
        return request
    longest = longest_min(site, request)
    if needed_min > longest:
        took = f"the last one took {seconds[-1]:.0f} s" if seconds else "the first one did not end in time"
        raise NeverFits(
            f"{every} epochs, from one checkpoint to the next, can never fit into a job: {took}, and a job at site {site.name} "
            f"may run for {longest} min at most; lower training.checkpoint_every or limit the network's growth."
        )
    return replace(request, time_min=min(longest, 2 * needed_min))
