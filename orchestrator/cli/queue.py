"""`coppice cancel`, `hold`, `release` and `retry`: what a user may do to the trials of a campaign, from any login node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coppice.orchestrator.cli.output import command, say
from coppice.orchestrator.cli.status import Folder

if TYPE_CHECKING:
    from coppice.orchestrator.folder.layout import CampaignFolder

Trials = Annotated[list[str] | None, typer.Argument(help="Trials; all when left out.", metavar="[TRIAL]...", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for one in (cancel, hold, release, retry):
        app.command()(one)


def _folder(path: Path) -> CampaignFolder:
    from coppice.orchestrator.folder.layout import CampaignFolder
    from coppice.orchestrator.folder.lock import load_spec

    folder = CampaignFolder(path.absolute())
    load_spec(folder)
    return folder


def cancel(folder: Folder, trials: Trials = None) -> None:
    """Cancel trials for good; without names the whole campaign, its driver first."""
    from coppice.orchestrator.operations.queue import cancel as cancel_jobs
    from coppice.slurm.client import Client

    _tell("cancelled", cancel_jobs(_folder(folder), Client(), trials or ()))


def hold(folder: Folder, trials: Trials = None) -> None:
    """Keep waiting jobs from starting."""
    _hold(folder, trials, release=False)


def release(folder: Folder, trials: Trials = None) -> None:
    """Let held jobs start."""
    _hold(folder, trials, release=True)


def _hold(folder: Path, trials: Sequence[str] | None, release: bool) -> None:
    from coppice.orchestrator.operations.queue import hold as hold_jobs
    from coppice.slurm.client import Client

    _tell("released" if release else "held", hold_jobs(_folder(folder), Client(), trials or (), release))


def retry(folder: Folder, trials: Trials = None) -> None:
    """Let failed trials go on from their newest checkpoints when the campaign is resumed."""
    from coppice.orchestrator.operations.queue import retry as retry_trials

    found = retry_trials(_folder(folder), trials or ())
    _tell("to be tried again", found)
    if found:
        say(f"Go on with: {command('resume', folder)}")


def _tell(what: str, trials: Sequence[str]) -> None:
    say(f"{len(trials)} {what}{': ' + ', '.join(trials[:10]) if trials else ''}{', ...' if len(trials) > 10 else ''}")
