"""`coppice status`: what a campaign is doing, or has done, and why its trials wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coppice.orchestrator.cli.options import Folder, Json
from coppice.orchestrator.cli.output import plain_table, print_json, show, write
from coppice.orchestrator.cli.tables import grouped, hours_text, jobs_table, status_json, status_table, summary
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.operations.overview import Overview, TrialStanding, overview
from coppice.orchestrator.operations.queue import TrialJobs, has_jobs
from coppice.orchestrator.operations.status import TrialStatus
from coppice.orchestrator.operations.status import status as read_status
from coppice.orchestrator.report.gather import read_json
from coppice.scheduler.metrics import mode_of
from coppice.slurm.client import ENDED, Client
from coppice.slurm.reasons import explained


def status(folder: Folder, as_json: Json = False) -> None:
    """Show a table of the trials: state, progress, metric, size; with Slurm also job, node, why it waits, and what it costs.

    Needs nothing but the folder: it works from any login node, whether the campaign runs or not and whether Slurm answers or not.
    """
    campaign = CampaignFolder(folder.absolute())
    view = overview(campaign, Client(timeout_s=20.0)) if campaign.lock.exists() and has_jobs(campaign) else None
    statuses = _from_folder(folder) if view is None else [s.trial for s in view.trials]
    search = read_json(campaign.lock)["campaign"]["search"]
    metric, mode = str(search["metric"]), mode_of(str(search["metric"]), search.get("mode"))
    if as_json:
        trials = [status_json(s) for s in statuses] if view is None else [_standing_json(s) for s in view.trials]
        jobs = {} if view is None else _jobs_json(view)
        print_json({"folder": folder, "metric": metric, "mode": mode, "trials": trials, **jobs})
        return
    if view is None:
        show(status_table(statuses, metric))
    else:
        _show_jobs(view, metric)
    for problem in (s.damage for s in statuses if s.damage):
        write(problem)
    write(f"{summary(statuses, metric, mode)}.")
    for remark in TrialRecords(campaign).remarks():
        write(remark)


def _from_folder(folder: Path) -> list[TrialStatus]:
    """By name, those of the search first."""
    return sorted(read_status(folder), key=lambda s: (s.label is not None, s.id))


def _show_jobs(view: Overview, metric: str) -> None:
    show(jobs_table(view.trials, metric))
    others = [j for j in view.queue.others if j.state not in (*ENDED, "gone")]
    if others:
        write("")
        _show_others(view, others)
    lines = grouped([(s.trial.id, s.why) for s in view.trials])
    lines += grouped([(j.trial, explained(j.reason or "None")) for j in others if j.state == "PENDING"])
    for line in ["", *lines] if lines else []:
        write(line)
    write("")
    for note in (*view.notes, view.driver, _cost(view)):
        write(note)


def _show_others(view: Overview, others: Sequence[TrialJobs]) -> None:
    """A table of the jobs that are no trial's: nodes of a pool."""
    used = {u.name: u for u in view.usage.others}
    rows = [(j.trial, j.job, j.state.lower(), j.nodes, hours_text(used[j.trial].core_hours)) for j in others]
    show(plain_table(("pool", "job", "state", "node", "core-h"), rows, numbers=("core-h",)))


def _cost(view: Overview) -> str:
    cores, gpus = (sum(getattr(u, name) for u in view.usage.billed) for name in ("core_hours", "gpu_hours"))
    return f"Used so far: {hours_text(cores)} core-hours{f', {hours_text(gpus)} GPU-hours' if gpus else ''}; see coppice top."


def _standing_json(standing: TrialStanding) -> dict[str, Any]:
    hours = {"core_hours": standing.usage.core_hours, "gpu_hours": standing.usage.gpu_hours} if standing.usage else {}
    jobs = asdict(standing.jobs) if standing.jobs else None
    return {**status_json(standing.trial), "why": standing.why, "job": jobs, **hours}


def _jobs_json(view: Overview) -> dict[str, Any]:
    others = [asdict(j) for j in view.queue.others]
    drivers = [{"id": j.id, "state": j.state, "reason": j.reason, "nodes": j.nodes} for j in view.queue.drivers]
    return {"others": others, "drivers": drivers, "driver": view.driver, "notes": list(view.notes)}
