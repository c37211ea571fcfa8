"""Runs the trials of a campaign that have not ended, by Ray Tune: whoever imports this imports Ray."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from ray import tune
from ray.tune.schedulers import TrialScheduler

from coppice.orchestrator.campaign.comparisons import missing_comparisons
from coppice.orchestrator.campaign.decisions import take_up, trial_scheduler
from coppice.orchestrator.campaign.ending import End
from coppice.orchestrator.campaign.interrupts import Interrupt
from coppice.orchestrator.campaign.progress import Progress, ProgressCallback
from coppice.orchestrator.campaign.sampler import Sampler
from coppice.orchestrator.campaign.tune_search import TuneSearch
from coppice.orchestrator.campaign.tune_stopper import InterruptStopper
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder, cancelled
from coppice.orchestrator.folder.surroundings import trouble_of
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.operations.gauges import Gauges
from coppice.orchestrator.operations.status import StatusBoard
from coppice.orchestrator.placement.catalog import placed
from coppice.orchestrator.placement.open_placement import OpenPlacement
from coppice.orchestrator.placement.runner import LEFTOVER_WAIT_S

PROGRESS_EVERY_S = 0.5
GAUGES_EVERY_S = 5.0
"""Time between two looks at all trials where nobody wants to see their progress: Ray hands metrics on every ten seconds."""


def run_trials(
    spec: Campaign, folder: CampaignFolder, on_progress: Progress | None, interrupt: Interrupt, begin: Callable[[], None]
) -> End:
    """Run what has not ended. A full disk, and whatever else fails around the trials, ends it without an error.

    Args:
        spec: the campaign.
        folder: its folder.
        on_progress: called now and then with the status of all trials.
        interrupt: what is to end it before.
        begin: called once everything is up, before the first trial starts.
    """
    try:
        return _run_trials(spec, folder, on_progress, interrupt, begin)
    except Exception as error:
        trouble = trouble_of(error, folder.path)
        if trouble is None:
            raise
        return End(trouble=trouble)


def _run_trials(
    spec: Campaign, folder: CampaignFolder, on_progress: Progress | None, interrupt: Interrupt, begin: Callable[[], None]
) -> End:
    ledger = TrialRecords(folder)
    jobs = spec.placement.name != "local"
    for problem in ledger.restore(under_way=not jobs):
        print(problem, file=sys.stderr)
    if not jobs:
        ledger.interrupt()
    scheduler = trial_scheduler(spec)
    entries = take_up(spec, folder, scheduler)
    sampler = Sampler(spec)
    sampler.restore(entries)
    search = TuneSearch(spec, ledger, entries, sampler, lambda: missing_comparisons(spec, folder), scheduler.stop_at)
    if not search.complete and interrupt.reason is None:
        with placed(spec, folder, lambda: interrupt.reason is not None or search.trouble is not None) as place:
            begin()
            search.limit = min(place.capacity, spec.search.max_concurrent or sys.maxsize)
            search.lost = place.lost
            asked = (lambda: "cancelled" if cancelled(folder) else "", place.lost)
            stopper = InterruptStopper(interrupt, *asked, hopeless=lambda: search.hopeless)
            _TuneRun(search, scheduler, stopper, _callback(spec, folder, on_progress)).start(folder, place)
    search.write_stops(LEFTOVER_WAIT_S)
    if search.complete:
        return End()
    if not jobs:
        ledger.interrupt()
    if interrupt.reason or search.hopeless or search.interrupted:
        return End(interrupt.reason, search.trouble, search.alike.reason, tuple(sorted(search.interrupted)))
    return End("SIGUSR1")


def _callback(spec: Campaign, folder: CampaignFolder, on_progress: Progress | None) -> ProgressCallback:
    reports: list[Progress] = [Gauges(spec.name, spec.search.metric), *([on_progress] if on_progress else [])]
    return ProgressCallback(StatusBoard(folder.path), reports, PROGRESS_EVERY_S if on_progress else GAUGES_EVERY_S)


@dataclass(frozen=True)
class _TuneRun:
    """What Ray Tune is given to run a campaign with."""

    search: TuneSearch
    trial_scheduler: TrialScheduler
    stopper: InterruptStopper
    callback: ProgressCallback

    def start(self, folder: CampaignFolder, place: OpenPlacement) -> None:
        """Run until the search has no more trials, or the stopper ends it."""
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        tune.run(
            place.trainable,
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str(folder.tune),
            search_alg=self.search,
            scheduler=self.trial_scheduler,
            stop=self.stopper,
            reuse_actors=place.reuse_workers,
            callbacks=[self.callback],
            raise_on_failed_trial=False,
            verbose=0,
        )
