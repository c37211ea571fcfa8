"""Runs trials, waits while their surroundings fail, and goes on: whoever imports this imports Ray."""

from __future__ import annotations

from collections.abc import Callable

from coppice.orchestrator.campaign.ending import End, wait_until_over
from coppice.orchestrator.campaign.interrupts import Interrupt
from coppice.orchestrator.campaign.progress import Progress
from coppice.orchestrator.campaign.tune_run import run_trials
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder, cancelled
from coppice.orchestrator.folder.trials import TrialRecords

IN_VAIN = 3
"""After so many pauses in a row without a new epoch between them the campaign ends."""


def run_with_pauses(
    spec: Campaign, folder: CampaignFolder, on_progress: Progress | None, interrupt: Interrupt, begin: Callable[[], None],
    say: Callable[[str], None], patience_s: float,
) -> End:  # fmt: skip
    """Run what has not ended; where a disk is full, say which, and go on once there is room, unless that takes too long.

    Args:
        spec: the campaign.
        folder: its folder.
        on_progress: called now and then with the status of all trials.
        interrupt: what is to end it before.
        begin: called once everything is up, before the first trial starts.
        say: called with a sentence when it pauses and when it goes on.
        patience_s: how long it waits.
    """
    epochs, in_vain = -1, 0

    def unwanted() -> bool:
        interrupt.receive_again()
        if interrupt.reason is None and cancelled(folder):
            interrupt.reason = "cancelled"
        return interrupt.reason is not None

    while True:
        end = run_trials(spec, folder, on_progress, interrupt, begin)
        if end.trouble is None or interrupt.reason:
            return end
        now = sum(len(e.reports) for e in TrialRecords(folder).entries())
        epochs, in_vain = now, in_vain + 1 if now == epochs else 0
        if in_vain >= IN_VAIN:
            return end
        say(f"The campaign pauses: {end.trouble}. It goes on by itself once that is over.")
        over = wait_until_over(end.trouble, unwanted, patience_s)
        if interrupt.reason:
            return End(signal=interrupt.reason)
        if not over:
            return end
        say("The campaign goes on.")
