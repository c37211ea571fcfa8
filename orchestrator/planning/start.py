"""Starts campaigns from Python as the command does: nothing runs, and nothing is left behind, before everything is checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coppice.orchestrator.campaign.run import Outcome, Say, warn
from coppice.orchestrator.campaign.run import run as run_checked
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.folder.origin import at_home
from coppice.orchestrator.planning.load import check_campaign

if TYPE_CHECKING:  # it imports Ray
    from coppice.orchestrator.campaign.progress import Progress


def run(
    spec: Campaign, *, resume: bool = False, on_progress: Progress | None = None, wait_s: float = 0.0, say: Say = warn,
    same_code: bool = False,
) -> Outcome:  # fmt: skip
    """Check a campaign as `coppice plan` does, and run it to its end, or until it is interrupted (Ctrl-C, SIGTERM, SIGUSR1).

    Args:
        spec: the campaign.
        resume: go on with the campaign in its folder: what has ended stays, what has not goes on from its own checkpoint.
        on_progress: called about twice a second with the status of all trials.
        wait_s: how long to wait for another process that runs the campaign to end.
        say: called with what is remarkable, in sentences: folders that are no trials, trials that are gone.
        same_code: refuse to resume where the code is not that of before.

    Raises:
        CampaignError: something is wrong with the campaign; nothing was started or changed.
        FileExistsError: there is a campaign of that name, and `resume` is False.
        FileNotFoundError: there is none, and `resume` is True.
        ValueError: the resumed campaign is another one, or a trial needs more than the placement has.
        BlockingIOError: another process runs the campaign.
    """
    folder = CampaignFolder((spec.root / spec.name).absolute())
    if resume:
        spec = spec.model_copy(update={"root": folder.path.parent})
    with at_home(folder.path, folder.lock):
        check_campaign(spec, begun=resume)
        return run_checked(spec, resume=resume, on_progress=on_progress, wait_s=wait_s, say=say, same_code=same_code)


def resume(
    folder: Path | str, *, on_progress: Progress | None = None, wait_s: float = 0.0, say: Say = warn,
    same_code: bool = False,
) -> Outcome:  # fmt: skip
    """Go on with the campaign in `folder`, wherever that stands now; arguments, result and errors as those of `run`."""
    spec = load_spec(CampaignFolder(Path(folder)))
    return run(spec, resume=True, on_progress=on_progress, wait_s=wait_s, say=say, same_code=same_code)
