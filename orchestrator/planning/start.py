"""Starts campaigns from Python as the command does: nothing runs, and nothing is left behind, before everything is checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coppice.orchestrator.campaign.run import Outcome, Say, warn
from coppice.orchestrator.campaign.run import run as run_checked
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.planning.load import check_campaign

if TYPE_CHECKING:  # it imports Ray
    from coppice.orchestrator.campaign.progress import Progress


def run(
    spec: Campaign, *, resume: bool = False, on_progress: Progress | None = None, wait_s: float = 0.0, say: Say = warn
) -> Outcome:
    """Check a campaign as `coppice plan` does, and run it to its end, or until it is interrupted (Ctrl-C, SIGTERM, SIGUSR1).

    Args:
        spec: the campaign.
        resume: go on with the campaign in its folder: what has ended stays, what has not goes on from its own checkpoint.
        on_progress: called about twice a second with the status of all trials.
        wait_s: how long to wait for another process that runs the campaign to end.
        say: called with what is remarkable, in sentences: folders that are no trials, trials that are gone.

    Raises:
        CampaignError: something is wrong with the campaign; nothing was started or changed.
        FileExistsError: there is a campaign of that name, and `resume` is False.
        FileNotFoundError: there is none, and `resume` is True.
        ValueError: the resumed campaign is another one, or a trial needs more than the placement has.
        BlockingIOError: another process runs the campaign.
    """
    check_campaign(spec, begun=resume)
    return run_checked(spec, resume=resume, on_progress=on_progress, wait_s=wait_s, say=say)


def resume(folder: Path | str, *, on_progress: Progress | None = None, wait_s: float = 0.0, say: Say = warn) -> Outcome:
    """Go on with the campaign in `folder`, wherever that stands now; arguments, result and errors as those of `run`."""
    return run(load_spec(CampaignFolder(Path(folder))), resume=True, on_progress=on_progress, wait_s=wait_s, say=say)
