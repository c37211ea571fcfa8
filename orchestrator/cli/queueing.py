"""`coppice jobs`, `cancel`, `hold`, `release` and `retry`: the jobs of a campaign, from any login node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import plain_table, print_json, say, show

if TYPE_CHECKING:
    from orchestrator.store import CampaignFolder

Folder = Annotated[Path, typer.Argument(help="Folder of a campaign.", metavar="FOLDER")]
Trials = Annotated[list[str] | None, typer.Argument(help="Trials; all when left out.", metavar="[TRIAL]...", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (jobs, cancel, hold, release, retry):
        app.command()(command)


def _folder(path: Path) -> CampaignFolder:
    from orchestrator.campaign.lock import load_spec
    from orchestrator.store import CampaignFolder

    folder = CampaignFolder(path.absolute())
    load_spec(folder)
    return folder


def jobs(folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show the Slurm job of each trial: id, state, the reason why it waits, nodes, how many jobs it has had."""
    from orchestrator.jobqueue import jobs_of
    from slurm.client import Client

    found = jobs_of(_folder(folder), Client())
    if as_json:
        print_json([asdict(j) for j in found])
        return
    heads = ("trial", "job", "state", "reason", "nodes", "jobs so far")
    rows = [(j.trial, j.job, j.state, j.reason, j.nodes, str(j.attempts)) for j in found]
    show(plain_table(heads, rows, numbers=("jobs so far",)))


def cancel(folder: Folder, trials: Trials = None) -> None:
    """Cancel trials for good; without names the whole campaign, its driver first."""
    from orchestrator.jobqueue import cancel as cancel_jobs
    from slurm.client import Client

    _tell("cancelled", cancel_jobs(_folder(folder), Client(), trials or ()))


def hold(folder: Folder, trials: Trials = None) -> None:
    """Keep waiting jobs from starting."""
    _hold(folder, trials, release=False)


def release(folder: Folder, trials: Trials = None) -> None:
    """Let held jobs start."""
    _hold(folder, trials, release=True)


def _hold(folder: Path, trials: Sequence[str] | None, release: bool) -> None:
    from orchestrator.jobqueue import hold as hold_jobs
    from slurm.client import Client

    _tell("released" if release else "held", hold_jobs(_folder(folder), Client(), trials or (), release))


def retry(folder: Folder, trials: Trials = None) -> None:
    """Let failed trials go on from their newest checkpoints when the campaign is resumed."""
    from orchestrator.jobqueue import retry as retry_trials

    found = retry_trials(_folder(folder), trials or ())
    _tell("to be tried again", found)
    if found:
        say(f"Go on with: coppice resume {folder}")


def _tell(what: str, trials: Sequence[str]) -> None:
    say(f"{len(trials)} {what}{': ' + ', '.join(trials[:10]) if trials else ''}{', ...' if len(trials) > 10 else ''}")
