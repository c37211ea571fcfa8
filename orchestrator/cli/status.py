"""`coppice status`: what a campaign is doing, or has done, and why its trials wait."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coppice.orchestrator.cli.output import console, print_json, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.orchestrator.operations.overview import Overview, Standing

Folder = Annotated[Path, typer.Argument(help="Folder of a campaign.", metavar="FOLDER")]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(status)


def status(folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show a table of the trials: state, progress, metric, size; with Slurm also job, node, why it waits, and what it costs.

    Needs nothing but the folder: it works from any login node, whether the campaign runs or not and whether Slurm answers or not.
    """
    from coppice.orchestrator.cli.tables import counts, leader, status_json, status_table
    from coppice.orchestrator.folder.layout import CampaignFolder
    from coppice.orchestrator.operations.overview import has_jobs, overview
    from coppice.orchestrator.operations.status import status as read_status
    from coppice.orchestrator.report.gather import read_json
    from coppice.slurm.client import Client

    campaign = CampaignFolder(folder.absolute())
    seen = overview(campaign, Client(timeout_s=20.0)) if campaign.lock.exists() and has_jobs(campaign) else None
    statuses = (
        sorted(read_status(folder), key=lambda s: (s.label is not None, s.id)) if seen is None else [s.trial for s in seen.trials]
    )
    search = read_json(campaign.lock)["campaign"]["search"]
    metric, mode = str(search["metric"]), str(search["mode"])
    if as_json:
        content = {"folder": folder, "metric": metric, "mode": mode}
        trials = [status_json(s) for s in statuses] if seen is None else [_standing_json(s) for s in seen.trials]
        print_json({**content, "trials": trials, **({} if seen is None else _jobs_json(seen))})
        return
    if seen is None:
        show(status_table(statuses, metric))
    else:
        _show_jobs(seen, metric)
    found = leader(statuses, metric, mode)
    _print(f"{counts(statuses)}{'; ' + found if found else ''}.")


def _print(line: str) -> None:
    console().print(line, markup=False, soft_wrap=True)


def _show_jobs(seen: Overview, metric: str) -> None:
    from coppice.orchestrator.cli.output import plain_table
    from coppice.orchestrator.cli.tables import grouped, hours_text, jobs_table
    from coppice.slurm.client import ENDED

    show(jobs_table(seen.trials, metric))
    others = [j for j in seen.queue.others if j.state not in (*ENDED, "gone")]
    if others:
        _print("")
        used = {u.name: u for u in seen.usage.others}
        rows = [(j.trial, j.job, j.state.lower(), j.nodes, hours_text(used[j.trial].core_hours)) for j in others]
        show(plain_table(("pool", "job", "state", "node", "core-h"), rows, numbers=("core-h",)))
    lines = grouped([(s.trial.id, s.why) for s in seen.trials])
    lines += grouped([(j.trial, _why(j.reason)) for j in others if j.state == "PENDING"])
    for line in ["", *lines] if lines else []:
        _print(line)
    _print("")
    for note in (*seen.notes, seen.driver, _cost(seen)):
        _print(note)


def _why(reason: str) -> str:
    from coppice.slurm.reasons import explained

    return explained(reason or "None")


def _cost(seen: Overview) -> str:
    from coppice.orchestrator.cli.tables import hours_text

    cores, gpus = (sum(getattr(u, name) for u in seen.usage.billed) for name in ("core_hours", "gpu_hours"))
    return f"Used so far: {hours_text(cores)} core-hours{f', {hours_text(gpus)} GPU-hours' if gpus else ''}; see coppice top."


def _standing_json(standing: Standing) -> dict[str, Any]:
    from coppice.orchestrator.cli.tables import status_json

    hours = {"core_hours": standing.usage.core_hours, "gpu_hours": standing.usage.gpu_hours} if standing.usage else {}
    jobs = asdict(standing.jobs) if standing.jobs else None
    return {**status_json(standing.trial), "why": standing.why, "job": jobs, **hours}


def _jobs_json(seen: Overview) -> dict[str, Any]:
    others: Sequence[Any] = seen.queue.others
    drivers = [{"id": j.id, "state": j.state, "reason": j.reason, "nodes": j.nodes} for j in seen.queue.drivers]
    return {"others": [asdict(j) for j in others], "drivers": drivers, "driver": seen.driver, "notes": list(seen.notes)}
