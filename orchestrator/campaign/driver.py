"""The campaign as a job: runs it until it is done or the job must end, and sees to it that another job goes on."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.orchestrator.campaign.run import run
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.files import read_json, write_atomic, write_json, written_by_us_alone
from coppice.orchestrator.folder.layout import CampaignFolder, cancelled
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.folder.opening import made
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.placement.ended_jobs import JobsKeepDying
from coppice.orchestrator.placement.job_names import driver_jobs_name
from coppice.orchestrator.placement.supervisor import DriverReplaced
from coppice.slurm.client import Client, SlurmError
from coppice.slurm.job.successor import NOT_DONE, Successor
from coppice.slurm.request import Request, options
from coppice.slurm.script import driver_script
from coppice.slurm.site import Site

if TYPE_CHECKING:  # it imports Ray
    from coppice.orchestrator.campaign.progress import Progress

IDLE_DRIVERS = 3
"""After so many drivers in a row that brought nothing on, there is no further one."""
SOON_S = 1800.0
"""A driver that lasted longer has not failed, even if no trial came further meanwhile: jobs may wait for days."""
PREDECESSOR_S = 600.0
"""How long to wait for the driver before: its node may be dead, and file servers free the locks of the dead after minutes."""


def script_text(spec: Campaign, folder: CampaignFolder, site: Site, request: Request) -> str:
    """The sbatch script of the driver."""
    command = [sys.executable, "-P", "-m", "coppice", "drive", str(folder.path)]
    return driver_script(site, options(site, request), driver_jobs_name(spec, folder), folder.driver_log, command)


def submit(spec: Campaign, site: Site, request: Request, client: Client) -> tuple[CampaignFolder, str]:
    """Make the campaign's folder and hand in its driver; returns the folder and the driver's job.

    Raises:
        FileExistsError: there is a campaign of that name, or a folder with something in it.
        SlurmError: Slurm refused, or there is none; nothing is left behind.
    """
    folder = CampaignFolder((spec.root / spec.name).absolute())
    script_text(spec, folder, site, request)  # raises what the site does not take, before there is a folder
    with written_by_us_alone(), made(folder, spec) as opened:
        folder.jobs.mkdir()
        write_atomic(folder.driver_script, script_text(spec, folder, site, request).encode())
        job = client.run("sbatch", "--parsable", str(folder.driver_script)).strip().split(";")[0]
        opened.begin()
    return folder, job


def drive(path: Path, client: Client, on_progress: Progress | None = None) -> int:
    """Run the campaign in a folder as the job that this process is; returns the exit code.

    Raises:
        RuntimeError: several drivers in a row have brought nothing on.
    """
    folder = CampaignFolder(path.absolute())
    spec = load_spec(folder)
    successor = Successor.of_this_job(folder.driver_script, client)
    if cancelled(folder):
        return 0
    successor.prepare()
    if _idle(folder) >= IDLE_DRIVERS:
        successor.done()
        raise RuntimeError(
            f"a driver must bring its campaign on, but the last {IDLE_DRIVERS} did not; see {folder.jobs / 'driver.log'}, "
            f"delete {folder.drivers} and start again: coppice drive {folder.path} in a job of your own."
        )
    try:
        outcome = run(spec, resume=True, on_progress=on_progress, wait_s=PREDECESSOR_S, say=_say, patience_s=math.inf)
    except (JobsKeepDying, DriverReplaced):
        successor.done()  # the next driver would fare no better, or is there already
        raise
    except BlockingIOError as error:
        if not _driven(folder, client):
            raise
        print(f"{error} Nothing is left to do for this job.", file=sys.stderr)
        successor.done()
        return 0
    if outcome.alike:
        _say(outcome.problem)
    if outcome.state == "finished" or outcome.alike or cancelled(folder):
        successor.done()
        return 0
    successor.hand_over()
    return NOT_DONE


def _say(sentence: str) -> None:
    """Into the driver's log."""
    print(sentence, file=sys.stderr, flush=True)


def _driven(folder: CampaignFolder, client: Client) -> bool:
    """Whether the job that holds the campaign runs: a driver that was requeued, and its successor, may both have been started."""
    held_by = re.search(r"job (\d+)$", folder.in_use.read_text().strip())
    try:
        job = client.live().get(held_by[1]) if held_by else None
    except SlurmError:
        return False
    return job is not None and job.state == "RUNNING" and job.id != os.environ.get("SLURM_JOB_ID")


def _idle(folder: CampaignFolder) -> int:
    """How many drivers in a row, up to now, have ended soon and without a single new epoch."""
    epochs = sum(len(e.reports) for e in TrialRecords(folder).entries())
    path, now = folder.drivers, time.time()
    before = _before(path) or {"epochs": -1, "idle": -1, "time": now}
    idle = before["idle"] + 1 if before["epochs"] == epochs and now - before["time"] < SOON_S else 0
    write_json(path, {"epochs": epochs, "idle": idle, "time": now})
    return int(idle)


def _before(path: Path) -> dict[str, Any] | None:
    """What the driver before has written; None where there was none, or it is damaged: nothing but a count is lost."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return dict(read_json(path))
    return None
