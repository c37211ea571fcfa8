"""`coppice run` and `coppice resume`: run a campaign, show how it goes, end with a table, a report and the best network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coppice.orchestrator.cli.output import INTERRUPTED, OK, TRIALS_FAILED, command, print_json, say, show

if TYPE_CHECKING:
    from coppice.orchestrator.campaign import Outcome
    from coppice.orchestrator.config.models import CampaignSpec

Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON; progress stays on standard error.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(run)
    app.command()(resume)


def run(
    file: Annotated[Path, typer.Argument(help="A campaign file.", metavar="FILE")],
    *,
    new: Annotated[bool, typer.Option("--new", help="Where a campaign of this name exists, take the next free name.")] = False,
    as_json: Json = False,
) -> None:
    """Run a campaign. Exit code 0: all trials ended well; 1: some failed, or nothing finished; 2: bad input; 3: interrupted."""
    from coppice.orchestrator.planning.load import load_campaign

    spec = load_campaign(file)
    if new:
        spec = spec.model_copy(update={"name": _free_name(spec.root, spec.name)})
    raise typer.Exit(_run(spec, resume=False, as_json=as_json))


def resume(
    campaign: Annotated[Path, typer.Argument(help="Folder of a campaign, or its campaign file.", metavar="FOLDER|FILE")],
    *,
    as_json: Json = False,
) -> None:
    """Go on with a campaign after any interruption; what is finished stays as it is. Exit codes as for `run`."""
    if campaign.is_dir():
        from coppice.orchestrator.campaign import load_spec
        from coppice.orchestrator.folder.layout import CampaignFolder

        here = campaign.resolve()
        spec = load_spec(CampaignFolder(here)).model_copy(update={"name": here.name, "root": here.parent})
    else:
        from coppice.orchestrator.planning.load import load_campaign

        spec = load_campaign(campaign)
    raise typer.Exit(_run(spec, resume=True, as_json=as_json))


def _free_name(root: Path, name: str) -> str:
    taken, number = name, 1
    while (root / taken).exists():
        number += 1
        taken = f"{name}-{number}"
    return taken


def _run(spec: CampaignSpec, *, resume: bool, as_json: bool) -> int:
    from coppice.orchestrator.campaign import run as run_campaign
    from coppice.orchestrator.cli.live import Progress

    folder = spec.root / spec.name
    say(f"{'Resuming' if resume else 'Running'} {spec.name} in {folder}. Ctrl-C stops it, and it can be resumed.")
    with Progress(spec.search.metric, spec.search.mode) as progress:
        outcome = run_campaign(spec, resume=resume, on_progress=progress)
    if outcome.state == "interrupted":
        say(f"Interrupted{f' by {outcome.signal}' if outcome.signal else ''}. Go on with: {command('resume', folder)}")
        return INTERRUPTED
    _finish(spec, outcome, as_json)
    if outcome.failed:
        say(f"{len(outcome.failed)} of {len(outcome.trials)} trials failed; why: {command('status', folder)}")
    return TRIALS_FAILED if outcome.failed or outcome.best is None else OK


def _finish(spec: CampaignSpec, outcome: Outcome, as_json: bool) -> None:
    """The table, the report and the best network."""
    from coppice.orchestrator.cli.best import export_best
    from coppice.orchestrator.cli.tables import counts, leader, status_json, status_table
    from coppice.orchestrator.report import write_report

    folder, metric, mode = outcome.folder, spec.search.metric, spec.search.mode
    sign = -1 if mode == "max" else 1
    statuses = sorted(outcome.trials, key=lambda s: (s.best is None, sign * s.metrics.get(metric, 0.0), s.id))
    page = write_report(folder)
    exported = export_best(folder) if outcome.best is not None else None
    if as_json:
        best = None if exported is None else exported.folder
        trials = [status_json(s) for s in statuses]
        print_json({"folder": folder, "metric": metric, "mode": mode, "report": page, "best": best, "trials": trials})
        return
    show(status_table(statuses, metric))
    found = leader(statuses, metric, mode)
    typer.echo(f"{counts(statuses)}{'; ' + found if found else ''}.")
    typer.echo(f"Report:       {page}")
    if exported is not None:
        typer.echo(f"Best network: {exported.folder}")
