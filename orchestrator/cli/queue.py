"""`coppice cancel`, `hold`, `release` and `retry`: what a user may do to the trials of a campaign, from any login node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from coppice.orchestrator.cli.options import Folder
from coppice.orchestrator.cli.output import command, say
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.operations import queue
from coppice.slurm.client import Client

Trials = Annotated[list[str] | None, typer.Argument(help="Trials; all when left out.", metavar="[TRIAL]...", show_default=False)]


def cancel(folder: Folder, trials: Trials = None) -> None:
    """Cancel trials for good; without names the whole campaign, its driver first."""
    _report("cancelled", queue.cancel(_campaign(folder), Client(), trials or ()))


def hold(folder: Folder, trials: Trials = None) -> None:
    """Keep waiting jobs from starting."""
    _report("held", queue.hold(_campaign(folder), Client(), trials or (), release=False))


def release(folder: Folder, trials: Trials = None) -> None:
    """Let held jobs start."""
    _report("released", queue.hold(_campaign(folder), Client(), trials or (), release=True))


def retry(folder: Folder, trials: Trials = None) -> None:
    """Let failed trials go on from their newest checkpoints when the campaign is resumed."""
    retried = queue.retry(_campaign(folder), trials or ())
    _report("to be tried again", retried)
    if retried:
        say(f"Go on with: {command('resume', folder)}")


def _campaign(path: Path) -> CampaignFolder:
    """The campaign in `path`; raises where there is none."""
    folder = CampaignFolder(path.absolute())
    load_spec(folder)
    return folder


def _report(what: str, trials: Sequence[str]) -> None:
    say(f"{len(trials)} {what}{': ' + ', '.join(trials[:10]) if trials else ''}{', ...' if len(trials) > 10 else ''}")
