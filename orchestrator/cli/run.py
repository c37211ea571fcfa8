"""`coppice run`: runs a campaign, shows how it goes, and ends with a table, a report and the best network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coppice.orchestrator.campaign import Outcome
from coppice.orchestrator.campaign import run as run_campaign
from coppice.orchestrator.cli.best import export_best
from coppice.orchestrator.cli.live import Progress
from coppice.orchestrator.cli.options import File, ResultsAsJson
from coppice.orchestrator.cli.output import INTERRUPTED, OK, TRIALS_FAILED, command, print_json, say, show, write
from coppice.orchestrator.cli.tables import status_json, status_table, summary
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.end_signals import Interrupted
from coppice.orchestrator.planning.load import load_campaign
from coppice.orchestrator.report import write_report
from coppice.orchestrator.report.export import Exported, NoNetwork


def run(
    file: File,
    *,
    new: Annotated[bool, typer.Option("--new", help="Where a campaign of this name exists, take the next free name.")] = False,
    as_json: ResultsAsJson = False,
) -> None:
    """Run a campaign. Exit code 0: all trials ended well; 1: some failed, or nothing finished; 2: bad input; 3: interrupted."""
    spec = load_campaign(file)
    if new:
        spec = spec.model_copy(update={"name": _free_name(spec.root, spec.name)})
    raise typer.Exit(run_and_show(spec, resume=False, as_json=as_json))


def _free_name(root: Path, name: str) -> str:
    free, number = name, 1
    while (root / free).exists():
        number += 1
        free = f"{name}-{number}"
    return free


def run_and_show(spec: Campaign, *, resume: bool, as_json: bool, same_code: bool = False) -> int:
    """Run a campaign to its end, with progress on standard error and the results on standard output; the exit code."""
    folder = spec.root / spec.name
    say(f"{'Resuming' if resume else 'Running'} {spec.name} in {folder}. Ctrl-C stops it, and it can be resumed.")
    try:
        with Progress(spec.search.metric, spec.search.mode) as progress:
            outcome = run_campaign(spec, resume=resume, on_progress=progress, say=progress.say, same_code=same_code)
    except Interrupted as signal:  # for the second time
        return _interrupted(str(signal), folder)
    if outcome.state == "interrupted":
        return _ended_early(outcome, folder)
    _show(spec, outcome, as_json)
    if outcome.failed:
        say(f"{len(outcome.failed)} of {len(outcome.trials)} trials failed; why: {command('status', folder)}")
    return TRIALS_FAILED if outcome.failed or outcome.best is None else OK


def _ended_early(outcome: Outcome, folder: Path) -> int:
    if outcome.signal == "cancelled":
        say(f"Cancelled. Trials that are to go on after all: {command('retry', folder)}, then {command('resume', folder)}")
        return INTERRUPTED
    if outcome.problem:
        say(outcome.problem)
    if outcome.alike:
        say(f"Mend it, then {command('retry', folder)} lets those that failed go on, and the rest starts with:")
        say(f"  {command('resume', folder)}")
        return TRIALS_FAILED
    return _interrupted(outcome.signal, folder)


def _interrupted(by: str | None, folder: Path) -> int:
    ends = f"Go on with: {command('resume', folder)}" if folder.exists() else "Nothing was started."
    say(f"Interrupted{f' by {by}' if by else ''}. {ends}")
    return INTERRUPTED


def _show(spec: Campaign, outcome: Outcome, as_json: bool) -> None:
    """The table, the report and the best network."""
    folder, metric, mode = outcome.folder, spec.search.metric, spec.search.mode
    sign = -1 if mode == "max" else 1
    statuses = sorted(outcome.trials, key=lambda s: (s.best is None, sign * s.metrics.get(metric, 0.0), s.id))
    page = write_report(folder)
    exported, why_not = _exported(folder) if outcome.best is not None else (None, "")
    if as_json:
        best = None if exported is None else exported.folder
        trials = [status_json(s) for s in statuses]
        print_json({"folder": folder, "metric": metric, "mode": mode, "report": page, "best": best, "trials": trials})
        return
    show(status_table(statuses, metric))
    write(f"{summary(statuses, metric, mode)}.")
    write(f"Report:       {page}")
    if exported is not None or why_not:
        write(f"Best network: {exported.folder if exported else why_not}")


def _exported(folder: Path) -> tuple[Exported | None, str]:
    """The best network, copied out; else why there is none to copy, as where a body of one's own keeps no checkpoints of ours."""
    try:
        return export_best(folder), ""
    except NoNetwork as error:
        return None, f"none was copied out. {error}"
